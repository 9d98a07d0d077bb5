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
from coordinator.runtime.cohorts import Cohorts
from coordinator.runtime.directory import Directory
from coordinator.runtime.driver import Driver
from coordinator.runtime.entropy import SeededEntropy
from coordinator.runtime.failpoints import Failpoints
from coordinator.runtime.gtrids import Gtrids
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.requests import Requests
from coordinator.runtime.row_requests import ExecuteRows, RowRequests
from coordinator.runtime.running import Running
from handfast.catalog import HandfastFault
from handfast.frames import LOST, TIMEOUT, UNREACHABLE, CallFailed, ColumnReplies, OnReply
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from handfast.xid import base36
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


@dataclass(slots=True)
class ColumnsCall:
    """Columns that a cohort sent; each of their rows is answered once, by whichever way the test likes."""

    bqual: str
    request: Any  # PrepareColumns or CommitColumns, whose fields a test looks at
    count: int
    replies: ColumnReplies
    timeout_s: float

    def yes(self, *rows: int) -> None:
        """Let the branch vote YES in these rows, with one message; in all when none is named."""
        voted = list(rows or range(self.count))
        answer = p.YesColumns(ids=[0], proofs=["of another call"], results=[b"of another call"])
        for row in voted:
            answer.ids.append(row)
            answer.proofs.append(self.proof(row))
            answer.results.append(self.result(row))
        self.replies.columns(voted, answer, 1)

    def done(self, *rows: int) -> None:
        """Let the branch acknowledge Commit in these rows, with one message; in all when none is named."""
        ended = list(rows or range(self.count))
        self.replies.columns(ended, p.DoneColumns(ids=[0, *ended]), 1)

    def answer(self, row: int, reply: Message | CallFailed) -> None:
        """Let a row's reply arrive by itself."""
        self.replies.single(row, reply)

    def lose(self, row: int) -> None:
        """Let a row fail."""
        self.answer(row, CallFailed(LOST, f"{self.bqual} is away.", grpc_status=14, maybe_executed=True))

    def proof(self, row: int) -> str:
        """What the branch gives with its vote in a row."""
        return f"xid of {self.bqual} in {self.request.gtrids[row]}"

    def result(self, row: int) -> bytes:
        """What the operation of a row returns."""
        payload: bytes = self.request.payloads[row]
        return b"done: " + payload


@dataclass
class ScriptedTransport:
    """Keeps what is sent until the test answers it.

    Args:
        calls: what was sent.
        columns: the same of what was sent in columns.
        by_columns: the branches to which columns can go.
    """

    calls: list[Call] = field(default_factory=list)
    columns: list[ColumnsCall] = field(default_factory=list)
    by_columns: set[str] = field(default_factory=set)

    def send(
        self, bqual: str, request: Message, on_reply: OnReply, *, attempt: int, any_instance: bool, timeout_s: float
    ) -> None:
        """See Transport."""
        self.calls.append(Call(bqual, request, on_reply, attempt, any_instance, timeout_s))

    def takes_columns(self, bqual: str) -> bool:
        """See Transport."""
        return bqual in self.by_columns

    def send_columns(
        self, bqual: str, columns: Message, count: int, replies: ColumnReplies, *, timeout_s: float
    ) -> None:
        """See Transport."""
        self.columns.append(ColumnsCall(bqual, columns, count, replies, timeout_s))

    def take_columns(self, bqual: str, kind: type[Message]) -> ColumnsCall:
        """Return the oldest columns of a kind to a branch that were not taken yet."""
        for call in self.columns:
            if call.bqual == bqual and isinstance(call.request, kind):
                self.columns.remove(call)
                return call
        raise AssertionError(f"no {kind.__name__} to {bqual} among {self.shown_columns()}")

    def shown_columns(self) -> list[str]:
        """What columns wait for an answer: ``3 Prepare accounts.a1``."""
        return [f"{call.count} {_WORDS[type(call.request)]} {call.bqual}" for call in self.columns]

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


_WORDS: dict[type, str] = {
    p.PrepareColumns: "Prepare",
    p.CommitColumns: "Commit",
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


@dataclass
class RowAnswers:
    """What somebody who asked for rows was told, row by row."""

    told: list[tuple[int, Running | HandfastFault | tuple[str, list[bytes]]]] = field(default_factory=list)

    def committed(self, rows: Sequence[int], gtrids: Sequence[str], results: Sequence[bytes]) -> None:
        """See RowsAnswer."""
        each = len(results) // len(rows)
        assert (len(results), len(gtrids)) == (each * len(rows), len(rows))
        for at, row in enumerate(rows):
            self.told.append((row, (gtrids[at], list(results[at * each : (at + 1) * each]))))

    def one(self, row: int, answer: Running | HandfastFault) -> None:
        """See RowsAnswer."""
        self.told.append((row, answer))

    @property
    def rows(self) -> list[int]:
        """Which rows were answered, in the order of that; one that was answered twice is there twice."""
        return [row for row, _ in self.told]

    @property
    def together(self) -> dict[int, tuple[str, list[bytes]]]:
        """Gtrid and results of the rows that were answered as committed, and nothing else."""
        return {row: answer for row, answer in self.told if isinstance(answer, tuple)}

    def alone(self, row: int) -> Running:
        """The one answer to a row, an outcome told by itself."""
        (answer,) = [answer for at, answer in self.told if at == row]
        assert isinstance(answer, Running), answer
        return answer

    def fault(self, row: int) -> HandfastFault:
        """The one answer to a row, a fault."""
        (answer,) = [answer for at, answer in self.told if at == row]
        assert isinstance(answer, HandfastFault), answer
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
        self.rows = RowRequests(self.requests, Cohorts(self.driver))
        for bqual in (A, B, C):
            self.directory.add(participant(bqual))

    def close(self) -> None:
        """Stop driving."""
        self.driver.close()
        self.rows.cohorts.close()

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

    def execute_rows(
        self, gtrids: Sequence[str], *bquals: str, timeout_s: float = 10.0, at_decision: bool = False, client: str = ""
    ) -> RowAnswers:
        """Run transactions that come as rows, over a transport that takes columns to their branches.

        Args:
            gtrids: their names.
            bquals: where the operations are done, one each: ``op`` with a payload that tells row and branch.
            timeout_s: how long they may stay undecided.
            at_decision: whether the answer is wanted at the decision.
            client: who asks, where names were not drawn.
        """
        self.transport.by_columns.update(bquals)
        answers = RowAnswers()
        asked = rows_of(gtrids, len(gtrids), *bquals, timeout_s=timeout_s, at_decision=at_decision)
        taken = self.rows.execute(asked, answers, client)
        assert list(taken) == list(range(len(gtrids)))
        return answers

    def names(self, count: int, client: str = "") -> list[str]:
        """Draw names."""
        prefix = self.requests.hand_out(count, client).prefix
        return [prefix + base36(number) for number in range(count)]

    def vote_rows(self, *bquals: str) -> None:
        """Let branches vote YES in all rows of the oldest columns."""
        for bqual in bquals:
            self.transport.take_columns(bqual, p.PrepareColumns).yes()

    def acknowledge_rows(self, *bquals: str) -> None:
        """Let branches acknowledge Commit in all rows of the oldest columns."""
        for bqual in bquals:
            self.transport.take_columns(bqual, p.CommitColumns).done()

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


def rows_of(
    gtrids: Sequence[str], count: int, *bquals: str, timeout_s: float = 10.0, at_decision: bool = False
) -> ExecuteRows:
    """Ask for transactions as rows."""
    return ExecuteRows(
        resources=tuple([bqual.partition(".")[0] for bqual in bquals]),
        names=("op",) * len(bquals),
        payloads=[f"{row} at {bqual}".encode() for row in range(count) for bqual in bquals],
        gtrids=gtrids,
        count=count,
        timeout_ms=int(timeout_s * 1000),
        at_decision=at_decision,
    )


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
