"""A coordinator's runtime with everything around it in a test's hand: time, participants, the log's disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.message import Message

from coordinator.log.memory import MemoryLog
from coordinator.log.records import Identity, ParticipantRecord
from coordinator.log.store import LogBroken, LogRefused
from coordinator.runtime.directory import Directory
from coordinator.runtime.driver import Driver
from coordinator.runtime.entropy import SeededEntropy
from coordinator.runtime.failpoints import Failpoints
from coordinator.runtime.gtrids import Gtrids
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.requests import Requests
from coordinator.runtime.running import Running
from handfast.catalog import HandfastFault
from handfast.frames import LOST, TIMEOUT, UNREACHABLE, CallFailed, OnReply
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.clock import START_UNIX_MS, ManualClock

COORDINATOR_ID = "k3v9q2xw"
A, B, C = "accounts.a1", "ledger.b1", "audit.c1"

M = TypeVar("M", bound=Message)


@dataclass(slots=True)
class Call:
    """One message that the driver sent."""

    bqual: str
    request: Any  # one of the Participant service's, whose fields a test looks at
    on_reply: OnReply
    attempt: int
    any_instance: bool
    timeout_s: float

    def answer(self, reply: Message | CallFailed) -> None:
        """Let the reply arrive."""
        self.on_reply(reply)

    def lose(self, *, maybe_executed: bool = True) -> None:
        """Let it fail."""
        code = LOST if maybe_executed else UNREACHABLE
        self.answer(CallFailed(code, f"{self.bqual} is away.", grpc_status=14, maybe_executed=maybe_executed))


@dataclass
class ScriptedTransport:
    """Keeps what is sent until the test answers it."""

    calls: list[Call] = field(default_factory=list)

    def send(
        self, bqual: str, request: Message, on_reply: OnReply, *, attempt: int, any_instance: bool, timeout_s: float
    ) -> None:
        """See Transport."""
        self.calls.append(Call(bqual, request, on_reply, attempt, any_instance, timeout_s))

    def take(self, bqual: str, kind: type[M]) -> Call:
        """Return the oldest message of a kind to a branch that was not taken yet."""
        for call in self.calls:
            if call.bqual == bqual and isinstance(call.request, kind):
                self.calls.remove(call)
                return call
        raise AssertionError(f"no {kind.__name__} to {bqual} among {self.shown()}")

    def shown(self) -> list[str]:
        """What waits for an answer, in the order it was sent: ``Prepare accounts.a1``."""
        return [f"{_WORDS[type(call.request)]} {call.bqual}" for call in self.calls]


_WORDS = {
    p.PrepareRequest: "Prepare",
    p.ParticipantCommitRequest: "Commit",
    p.CommitOnePhaseRequest: "CommitOnePhase",
    p.ParticipantRollbackRequest: "Rollback",
}


@dataclass
class Answers:
    """What somebody who asked was told."""

    told: list[Running | HandfastFault] = field(default_factory=list)

    def __call__(self, answer: Running | HandfastFault) -> None:
        self.told.append(answer)

    @property
    def only(self) -> Running:
        """The one answer, an outcome."""
        (answer,) = self.told
        assert isinstance(answer, Running), answer
        return answer

    @property
    def fault(self) -> HandfastFault:
        """The one answer, a fault."""
        (answer,) = self.told
        assert isinstance(answer, HandfastFault)
        return answer


class Life:
    """One life of a coordinator: from start to crash. The log and the clock may come from an earlier one.

    Args:
        identity: what the log said at its opening.
    """

    def __init__(
        self, log: MemoryLog, identity: Identity, clock: ManualClock, options: DriverOptions, failpoint: str = ""
    ) -> None:
        self.log = log
        self.clock = clock
        self.broken: list[LogBroken] = []
        self.transport = ScriptedTransport()
        self.entropy = SeededEntropy(7)
        self.directory = Directory()
        self.driver = Driver(
            log, self.transport, clock, self.entropy, options, Failpoints(failpoint), self.broken.append
        )
        started_unix_ms = log.life_started_unix_ms(identity.epoch) or 0
        self.gtrids = Gtrids(identity.coordinator_id, identity.epoch, clock, options.block_lifetime_s, started_unix_ms)
        self.requests = Requests(self.driver, self.gtrids, self.directory)
        for bqual in (A, B, C):
            self.directory.add(participant(bqual))

    def begin(self, *bquals: str, timeout_s: float = 10.0) -> str:
        """Begin a transaction with these branches."""
        gtrid = self.requests.begin(int(timeout_s * 1000), "test").gtrid
        for bqual in bquals:
            resource, instance = bqual.split(".")
            self.requests.enlist(gtrid, resource, instance, 0)
        return gtrid

    def commit(self, gtrid: str, *, at_decision: bool = False, branches: int = 0) -> Answers:
        """Ask for the commit."""
        answers = Answers()
        self.requests.commit(gtrid, branches, at_decision, answers)
        return answers

    def rollback(self, gtrid: str, *, branches: int = 0) -> Answers:
        """Ask for the rollback."""
        answers = Answers()
        self.requests.rollback(gtrid, "", branches, answers)
        return answers

    def execute(self, *operations: tuple[str, str], gtrid: str = "", timeout_s: float = 10.0) -> Answers:
        """Run (resource, operation) in one shot."""
        answers = Answers()
        named = [t.Operation(resource=resource, name=name) for resource, name in operations]
        self.requests.execute(gtrid, int(timeout_s * 1000), named, False, answers)
        return answers

    def vote(self, *bquals: str, said: t.Vote.ValueType = t.VOTE_YES, results: Sequence[bytes] = ()) -> None:
        """Let branches vote."""
        for bqual in bquals:
            proof = f"xid of {bqual}" if said == t.VOTE_YES else ""
            reply = p.PrepareResponse(vote=said, proof=proof, reason="no money", results=results)
            self.transport.take(bqual, p.PrepareRequest).answer(reply)

    def acknowledge(self, *bquals: str, outcome: t.Outcome.ValueType = t.OUTCOME_COMMITTED) -> None:
        """Let branches answer their Commit."""
        for bqual in bquals:
            reply = p.ParticipantCommitResponse(outcome=outcome)
            self.transport.take(bqual, p.ParticipantCommitRequest).answer(reply)

    def rolled_back(self, *bquals: str, outcome: t.Outcome.ValueType = t.OUTCOME_ABORTED) -> None:
        """Let branches answer their Rollback."""
        for bqual in bquals:
            reply = p.ParticipantRollbackResponse(outcome=outcome)
            self.transport.take(bqual, p.ParticipantRollbackRequest).answer(reply)

    async def decided(self, *bquals: str) -> tuple[str, Answers]:
        """Bring a transaction with these branches to a durable commit."""
        gtrid = self.begin(*bquals)
        answers = self.commit(gtrid)
        self.vote(*bquals)
        await forced()
        return gtrid, answers

    async def committed(self, *bquals: str) -> str:
        """Bring a transaction with these branches to its end."""
        gtrid, _ = await self.decided(*bquals)
        self.acknowledge(*bquals)
        return gtrid


def participant(bqual: str, address: str = "", registered_unix_ms: int = 0) -> ParticipantRecord:
    """The process that holds a branch."""
    resource, instance = bqual.split(".")
    return ParticipantRecord(resource, instance, address or f"{bqual}:7401", "scripted", (), registered_unix_ms)


def memory_log(
    before_force: Callable[[int], None] | None = None, unix_ms: Callable[[], int] = lambda: START_UNIX_MS
) -> MemoryLog:
    """A log that is not open yet."""

    def on_broken(problem: LogBroken) -> None:
        raise AssertionError("the log broke") from problem

    return MemoryLog(
        make_coordinator_id=lambda: COORDINATOR_ID,
        on_broken=on_broken if before_force is None else lambda _: None,
        unix_ms=unix_ms,
        before_force=before_force,
        lazy_flush_s=0.0,
    )


async def start(
    log: MemoryLog | None = None,
    clock: ManualClock | None = None,
    options: DriverOptions | None = None,
    failpoint: str = "",
) -> Life:
    """Start a coordinator, over the log of an earlier one if there is one."""
    log = log or memory_log()
    return Life(log, await log.open(), clock or ManualClock(), options or DriverOptions(), failpoint)


async def restart(life: Life, *, forced: int = 0) -> Life:
    """Kill a coordinator and start the next over its log, without recovery.

    Args:
        forced: how many of the records that waited for the force became durable all the same.
    """
    life.driver.close()
    life.log.crash(forced)
    return await start(life.log, life.clock, life.driver.options)


async def forced() -> None:
    """Let the log force what waits, and its callbacks run. The memory log does it when the loop comes round."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def timed_out(bqual: str) -> CallFailed:
    """A call without an answer in time."""
    return CallFailed(TIMEOUT, f"{bqual} did not answer.", grpc_status=4, maybe_executed=True)


def refused(count: int) -> None:
    """A disk that is full."""
    raise LogRefused(f"no space for {count} record(s)")
