"""What drives the protocol: the one loop of step, force and send, and what it needs around it.

``driver``      takes requests and replies, steps the machines, obeys their effects
``running``     a transaction in memory: the machine with its operations, history and waiters
``answers``     who waits for its outcome, and when each is told
``gtrids``      blocks of transaction names, and which of them were used
``schedule``    deadlines and retries in few timers; ``retries`` says what is sent again
``transport``   the contract for messages to participants; ``links`` is the one over gRPC, ``directory`` who is where
``recovery``    what happens at start, and the sweep for orphans; ``backlog`` tells what was decided, a part at a time
``resolution``  what an operator may do by hand
``inspection``, ``survey``, ``in_doubt``, ``audit``, ``diagnosis``  reports: what is where, why, and whether it agrees
``trace``       each step of each machine, told for somebody outside
``clock``, ``entropy``, ``failpoints``  the only doors for time, chance and planned crashes
"""
