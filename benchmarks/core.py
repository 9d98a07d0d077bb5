"""``python -m benchmarks.core``: CPU time of the coordinator's own Python for a transaction, without gRPC, log or load.

Nothing else runs meanwhile, and the best of several rounds counts, so this tells a change of a microsecond on a machine
that is busy with other things. It is for whoever changes the hot path; ``make bench`` measures the whole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from benchmarks.loop import run
from coordinator.log.records import DecisionRecord, EndRecord, ParticipantRecord
from coordinator.log.rows import decision_row, end_row
from coordinator.protocol import events as e
from coordinator.protocol.states import Decision, Outcome, Vote
from coordinator.protocol.transaction import GlobalTransaction
from coordinator.rpc.coordinator_service import Dispatch
from coordinator.runtime.clock import SystemClock
from coordinator.runtime.directory import STATIC_INSTANCE, Directory
from coordinator.runtime.driver import Driver
from coordinator.runtime.entropy import SystemEntropy
from coordinator.runtime.failpoints import Failpoints
from coordinator.runtime.gtrids import Gtrids
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.requests import Requests
from handfast import collector
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t

ROUNDS = 9
TIMES = 3000
RESOURCES = ("accounts", "ledger")

_ANSWERS = {
    p.PrepareRequest: p.PrepareResponse(vote=t.VOTE_YES, proof="pg:123456789", results=[b""]),
    p.ParticipantCommitRequest: p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED),
}


class Instant:
    """Stands for the participants and for the log: everything is answered as soon as ``answer_all`` is called."""

    horizon_unix_ms = 0

    def __init__(self) -> None:
        self._answers: deque[Callable[[], None]] = deque()

    def send(self, bqual: str, request: object, on_reply: Callable[[Any], None], **rest: object) -> None:
        """As a transport."""
        self._answers.append(partial(on_reply, _ANSWERS[cast(Any, type(request))]))

    def decide(self, record: DecisionRecord, on_decided: Callable[[Any], None]) -> None:
        """As a log."""
        decision_row(record)
        self._answers.append(partial(on_decided, record.decision))

    def end(self, record: EndRecord, on_written: object = None) -> None:
        """As a log."""
        end_row(record)

    def answer_all(self) -> None:
        """Answer until nothing more is asked."""
        while self._answers:
            self._answers.popleft()()


def step() -> None:
    """The protocol core alone: a transaction of two branches, in eight events."""
    machine = GlobalTransaction("k3v9q2xw-3-0m9xk2f1c-2s", 1e9)
    branches = [f"{resource}.{STATIC_INSTANCE}" for resource in RESOURCES]
    for bqual in branches:
        machine.step(e.Enlisted(bqual))
    machine.step(e.CommitRequested(1.0))
    for bqual in branches:
        machine.step(e.VoteReceived(bqual, Vote.YES, 1.0, "pg:123456789"))
    machine.step(e.DecisionStood(Decision.COMMIT))
    for bqual in branches:
        machine.step(e.BranchEnded(bqual, Outcome.COMMITTED))


def best_us(work: Callable[[], None]) -> float:
    """The CPU time of one call in the best round, in microseconds."""
    rounds = []
    for _ in range(ROUNDS):
        began_s = time.process_time()
        for _ in range(TIMES):
            work()
        rounds.append((time.process_time() - began_s) / TIMES)
    return min(rounds) * 1e6


async def main() -> None:
    """Measure and print."""
    collector.calm()  # as the server does
    clock, instant = SystemClock(), Instant()
    driver = Driver(
        *(cast(Any, instant), cast(Any, instant), clock, SystemEntropy(), DriverOptions(), Failpoints()),
        on_log_broken=lambda broken: None,
    )
    directory = Directory(ParticipantRecord(one, STATIC_INSTANCE, "host:1", "", (), 0) for one in RESOURCES)
    dispatch = Dispatch(Requests(driver, Gtrids("abcdefgh", 1, clock, 600.0, 0), directory))
    operations = [t.Operation(resource=resource, name="change", payload=b"1") for resource in RESOURCES]
    request = c.ExecuteRequest(operations=operations, timeout_ms=60_000)
    answers: deque[Any] = deque(maxlen=1)

    def execute() -> None:
        dispatch(request, answers.append)
        instant.answer_all()

    print(f"the protocol core, two branches, eight events  {best_us(step):6.1f} µs")
    print(f"Execute from its request to its response       {best_us(execute):6.1f} µs")
    if answers[0].outcome != t.OUTCOME_COMMITTED:
        raise SystemExit(f"it was not committed: {answers[0]}")


if __name__ == "__main__":
    run(main())
