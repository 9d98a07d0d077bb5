"""The soak: the whole stack for a long time under every fault, and nothing may grow.

    python -m chaos.soak                 half an hour; `make soak`
    python -m chaos.soak --minutes 8

A leak of a kilobyte a transaction shows in no test of seconds. So clients make transfers for as long as one likes,
under the faults of the scenario `everything`, while each process is looked at from outside: memory, descriptors,
threads, the servers' sessions, the log's bytes, prepared transactions. At the end each of them is judged.

Processes die in the first quarter only. A process that is born again every half minute has no time to leak; so from
there on faults are those that a process survives: partitions, silence, slow links, pauses, databases that crash.

The log keeps an ended transaction for a minute (it is a day by default), a participant remembers an ended branch for as
long (an hour), and reports remember five hundred transactions (ten thousand): what is bounded by time or number comes
to its bound within the warm-up, and is flat from there.

    samples    what is looked at, and how
    flatness   the rule
    endure     one run: stack, faults, clients, samples, and what the judges say
    picture    the curves
    report     the table
"""
