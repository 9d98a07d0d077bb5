"""What a garbage client costs a good one: ``python -m benchmarks.garbage [KIND…]``.

A coordinator over mutual TLS serves a *good* client, who runs transactions over two participants that do nothing, 64 in
flight, as fast as it can. A *garbage* client, a process of its own with a valid certificate under another name, does
one kind of mischief at a time as fast as it can. All limits are the documented defaults.

What is fair to measure? On a machine of few cores a garbage client harms others already by running: its own process
takes a core from them, which no server can prevent, and which would not happen were it on a machine of its own. So each
round measures three things, one right after the other:

    alone     the good client, and nobody else
    garbage   with the garbage client; how much CPU its process takes is measured too
    burner    with a process that takes as much CPU as the garbage client just did, and talks to nobody

``garbage / burner`` is what the garbage did to the server, and the figure that has to stay above two thirds.
``garbage / alone`` is told with it. So is the coordinator's CPU time for each good transaction, alone by with garbage:
where the good client keeps the coordinator busy, that is the same harm, seen without the machine around it. And so is
what garbage took of a core, which hardly depends on what else the machine does: the share that a caller may have is one
of time, and a coordinator that gets a third of a core for itself gives away three times as much of that.

    kinds     the mischief, by name; frame_kinds: that at the frame port
    client    the garbage client's process
    good      the good client's process
    burner    the process that only burns
    lab       certificates, coordinator, participants
    __main__  rounds, and the table
"""
