"""The speed figures, each against its baseline in the same run: ``make bench``, or ``python -m benchmarks oneshot``.

The map, from the bottom up:

    pairs         A B A B …, and medians with min and max
    figures       the figures by name: what each shall reach, and how it came out
    interpreter   how the Python was built that runs it, and which one to take
    machine       what it ran on
    servers/      programs: a service over Postgres, a participant without a database, a server of empty calls
    worker/       one program that puts load on something and measures it, in a process of its own
    lab           the processes: databases, coordinators, participants, workers; built on chaos.stack
    bench         what every benchmark is given
    throughput    oneshot_ratio, interactive_ratio, and the same at 1, 8, 64 and 256 in flight
    capacity      capacity_ratio and what goes with it, branches_scaling
    latency       latency_ratio, tail_ratio
    recovery      recovery_ratio, open_log_s
    memory        memory_kib_per_open, memory_drift
    report, chart results.json, the table, the picture
"""
