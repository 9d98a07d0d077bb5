"""A process that uses a decision log until something ends it; run with the log's path and what to do.

It says one line per thing that happened, unbuffered, so that what was said had happened before the end: ``open``,
``acknowledged GTRID``, ``failed CLASS`` and ``broken``.
"""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from coordinator.log.records import DecisionRecord
from coordinator.log.sqlite import SqliteLog
from tests.conformance.decision_logs import COORDINATOR_ID, commit, ended

FORCES_BEFORE_KILL = 20
FILE_BYTES_MAX = 256 << 10


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


class Load:
    """Decides one transaction after another, always as many at a time, until the log fails."""

    def __init__(self, log: SqliteLog, in_flight: int) -> None:
        self.log = log
        self.offered = 0
        self.failed = asyncio.Event()
        for _ in range(in_flight):
            self.offer()

    def offer(self) -> None:
        self.offered += 1
        record = commit(self.offered)
        self.log.decide(record, partial(self.on_decided, self.offered, record))

    def on_decided(self, number: int, record: DecisionRecord, answer: object) -> None:
        if answer is record.decision:
            say(f"acknowledged {record.gtrid}")
            self.log.end(ended(number))
            self.offer()
        else:
            say(f"failed {type(answer).__name__}")
            self.failed.set()


def kill_self_at_last_force() -> Callable[[int], None]:
    forces = iter(range(FORCES_BEFORE_KILL))

    def before_force(_: int) -> None:
        if next(forces, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    return before_force


async def run(path: Path, task: str) -> None:
    log = SqliteLog(
        path,
        make_coordinator_id=lambda: COORDINATOR_ID,
        unix_ms=lambda: 1,
        on_broken=lambda _: say("broken"),
        before_force=kill_self_at_last_force() if task == "one-by-one-until-a-force-kills" else None,
    )
    await log.open()
    say("open")
    if task == "nothing":
        await asyncio.Event().wait()
    if task == "until-no-file-may-grow":
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, resource.RLIM_INFINITY))
    await Load(log, in_flight=1 if task == "one-by-one-until-a-force-kills" else 64).failed.wait()
    await log.close()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2]))
