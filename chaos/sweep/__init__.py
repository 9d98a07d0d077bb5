"""The crash sweep: the coordinator dies, or its disk fails, at every single call that changes its log's files.

    python -m chaos.sweep            every point, some 12 minutes on two cores; `make crash-sweep`
    python -m chaos.sweep --quick    every fifth, and every force

Why it is complete. What a crash leaves is what the calls before it have written, so there are only as many different
crashes as calls: one before each, and one after each that makes something durable. strace counts the calls of a fixed
workload first; then the workload is run again for each call and each fault, and the fault strikes exactly there. A
series of runs ends only when a run was not struck any more: its workload has no further call.

strace counts by thread and by kind of call. So the workload is cut into *stages*, in each of which one thread of the
coordinator writes, and strace begins to count where the stage begins.

Processes are real: a coordinator, the bank's two services, two Postgres servers. All but the coordinator outlive the
runs. After each, the coordinator is started without fault, and the lab's judges (chaos/checkers.py) look at everything
that has been acknowledged since its log was made.

    tracing      strace: found or fetched, its options, its output
    points       what is swept: stages, calls, faults
    endings      how the coordinator may end at which point
    lane         one stack, and what can be asked of it
    stages       the workload's pieces
    strikes      one point: strike, start again, judge
    series       all points of one stage, call and fault, in order; several side by side
    report       counts and verdict
    nursery      a process that forks coordinators, for loading one takes longer than all else
    forked       its children, handled like every other process
"""
