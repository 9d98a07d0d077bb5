"""One program that puts load on something, measures it, and prints one line of JSON: ``python -m benchmarks.worker``.

spec       what to do, and what came of it: both are JSON on their way between processes
cpu        CPU time of this process and of those it is told to watch
load       closed loop (so many in flight) and open loop (so many a second)
handfast_calls, by_hand, grpc_calls
           what one call is
in_doubt   branches left in doubt, and COMMIT PREPARED without a coordinator
hold       transactions that stay open
"""
