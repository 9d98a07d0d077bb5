"""Coming back: recovery_ratio, with many branches in doubt, and open_log_s, with much behind it."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.lab import FINISH_CONNECTIONS, Coordinator, run_worker
from benchmarks.pairs import alternate, summarize
from chaos.stack import NotInTime
from coordinator.log.batches import apply_batch
from coordinator.log.chain import Head, read_head
from coordinator.log.records import DecisionRecord, EndRecord, LoggedBranch
from coordinator.log.rows import decision_row, end_row
from coordinator.log.sqlite import SqliteLog
from coordinator.log.submissions import Decide, End, Submission
from coordinator.protocol.states import Decision, Outcome
from handfast.clock import unix_ms
from handfast.xid import Gtrid

RESOLVED_S_MAX = 300.0
LOOK_PAUSE_S = 0.01
CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class Resolved:
    """How one restart went.

    Args:
        branches: how many were in doubt.
        first_s: from the start of the process until the first was resolved, in seconds.
        took_s: until the last was.
    """

    branches: int
    first_s: float
    took_s: float

    @property
    def per_second(self) -> float:
        """The rate that counts: from the start of the process."""
        return self.branches / self.took_s


def recovery(bench: Bench) -> list[Figure]:
    """Branches resolved a second from the restart, against COMMIT PREPARED."""
    pairs = alternate(lambda: _resolve(bench), lambda: _committed_per_second(bench), bench.plan.pairs)
    bench.details["recovery, branches a second"] = {
        "handfast": [pair.a.per_second for pair in pairs],
        "by hand": [pair.b for pair in pairs],
    }
    first_s = summarize(pair.a.first_s for pair in pairs)
    bench.details["recovery, s"] = {
        "until the first branch is resolved": [pair.a.first_s for pair in pairs],
        "until the last is": [pair.a.took_s for pair in pairs],
    }
    share = summarize(pair.a.first_s / pair.a.took_s for pair in pairs).median
    note = f"with {pairs[0].a.branches} branches; {first_s.median:.2f} s until the first, {share:.0%} of the time"
    return [Figure("recovery_ratio", summarize(pair.a.per_second / pair.b for pair in pairs), note)]


def _resolve(bench: Bench) -> Resolved:
    services = bench.services
    services.coordinator.process.kill()
    run_worker(bench.stack, services.spec("leave_in_doubt", count=bench.plan.in_doubt, watch={}))
    with services.postgres.counting_prepared() as count:
        in_doubt = left = count()
        began_s = time.perf_counter()
        services.coordinator.process.start(wait=False)
        first_s, took_s = 0.0, 0.0
        while left:
            if took_s > RESOLVED_S_MAX:
                raise NotInTime(f"{left} branches are in doubt {took_s:.0f} s after the start")
            time.sleep(LOOK_PAUSE_S)
            left, took_s = count(), time.perf_counter() - began_s
            if left < in_doubt and not first_s:
                first_s = took_s
    services.coordinator.process.wait_ready()
    services.wait_reached()
    return Resolved(in_doubt, first_s, took_s)


def _committed_per_second(bench: Bench) -> float:
    spec = bench.services.spec("commit_prepared", count=bench.plan.in_doubt, in_flight=FINISH_CONNECTIONS, watch={})
    return run_worker(bench.stack, spec).per_second


def open_log(bench: Bench) -> list[Figure]:
    """Start with a full log, against start with an empty one."""
    full, empty = (Coordinator(bench.stack, name) for name in ("full-log", "empty-log"))
    bench.tell(f"  writing a log of {bench.plan.logged} transactions")
    fill_log(full.log, bench.plan.logged)
    pairs = alternate(lambda: _ready_s(full), lambda: _ready_s(empty), bench.plan.pairs)
    bench.details["start, s"] = {"full": [pair.a for pair in pairs], "empty": [pair.b for pair in pairs]}
    note = f"with {bench.plan.logged} finished transactions"
    return [Figure("open_log_s", summarize(pair.a - pair.b for pair in pairs), note)]


def _ready_s(coordinator: Coordinator) -> float:
    began_s = time.perf_counter()
    coordinator.start()
    took_s = time.perf_counter() - began_s
    coordinator.process.stop()
    return took_s


def fill_log(path: Path, count: int) -> None:
    """Write so many finished transactions into a new log, as the coordinator would have spelled them."""
    coordinator_id = asyncio.run(_make_log(path))
    submissions = finished(coordinator_id, count)
    with closing(sqlite3.connect(path)) as log, log:
        head: Head | None = read_head(log)
        while head is not None and (chunk := list(itertools.islice(submissions, CHUNK))):
            head = apply_batch(log, chunk, head).head


async def _make_log(path: Path) -> str:
    log = SqliteLog(path, make_coordinator_id=lambda: "benchmrk", on_broken=print, unix_ms=unix_ms)
    identity = await log.open()
    await log.close()
    return identity.coordinator_id


def finished(coordinator_id: str, count: int) -> Iterator[Submission]:
    """What writes finished transactions, the newest ended now."""
    now_ms = time.time_ns() // 1_000_000
    for number in range(count):
        ended_ms = now_ms - (count - number)
        gtrid = str(Gtrid(coordinator_id, 1, ended_ms, number))
        branches = (LoggedBranch("accounts.bench", f"pg:{number}"), LoggedBranch("ledger.bench", f"pg:{number}"))
        decision = DecisionRecord(gtrid, Decision.COMMIT, branches, ended_ms, ended_ms, "bench")
        end = EndRecord(gtrid, Outcome.COMMITTED, ended_ms)
        yield Decide(decision, decision_row(decision), lambda _: None)
        yield End(end, end_row(end), None)
