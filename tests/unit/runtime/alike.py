"""Two coordinators at the same time of the same day: one is given rows, the other the same transactions one by one.

Whatever happens is told to both. Then a transaction has to be the same in both, in every field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from coordinator.protocol.transaction import GlobalTransaction
from coordinator.runtime.running import Running
from handfast.frames import CallFailed
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.scripted import Answers, ColumnsCall, Life, RowAnswers, forced, rows_of, start


def every_field(running: Running) -> dict[str, Any]:
    """A transaction in memory, field by field; of those who wait only what they wait for."""
    machine = running.transaction
    fields = {slot: getattr(running, slot) for slot in Running.__slots__}
    fields["transaction"] = {slot: getattr(machine, slot) for slot in GlobalTransaction.__slots__}
    fields["waiters"] = [waiter.at_decision for waiter in running.waiters]
    fields["results"] = {bqual: list(results) for bqual, results in running.results.items()}
    fields["operations"] = {bqual: list(operations) for bqual, operations in running.operations.items()}
    fields["next_attempt_unix_ms"] = dict(running.next_attempt_unix_ms)
    return fields


@dataclass
class Pair:
    """Both coordinators.

    Args:
        together: the one with rows.
        alone: the one without.
        gtrids: the transactions.
        rows: what was told of the rows.
        singles: what was told of the same transactions by the other, in the order of ``gtrids``.
    """

    together: Life
    alone: Life
    gtrids: list[str]
    rows: RowAnswers
    singles: list[Answers]

    @property
    def lives(self) -> tuple[Life, Life]:
        return self.together, self.alone

    def advance(self, seconds: float) -> None:
        """Let time pass for both."""
        for life in self.lives:
            life.clock.advance(seconds)

    def vote(self, bqual: str, *rows: int) -> None:
        """Let a branch vote YES in some transactions, or in all; to the one with as few messages as can be."""
        for columns, within in self._columns(bqual, p.PrepareColumns, rows):
            for row in within:
                reply = p.PrepareResponse(vote=t.VOTE_YES, proof=columns.proof(row), results=[columns.result(row)])
                self._answer_alone(bqual, p.PrepareRequest, columns.request.gtrids[row], reply)
            columns.yes(*within)

    def acknowledge(self, bqual: str, *rows: int) -> None:
        """The same for Commit."""
        for columns, within in self._columns(bqual, p.CommitColumns, rows):
            for row in within:
                reply = p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)
                self._answer_alone(bqual, p.ParticipantCommitRequest, columns.request.gtrids[row], reply)
            columns.done(*within)

    def answer(self, bqual: str, row: int, reply: Message | CallFailed) -> None:
        """Let a branch answer Prepare or Commit otherwise in one transaction, which may be a row or none any more."""
        committing = isinstance(reply, p.ParticipantCommitResponse)
        kinds = (p.CommitColumns, p.ParticipantCommitRequest) if committing else (p.PrepareColumns, p.PrepareRequest)
        ((columns, (within,)),) = self._columns(bqual, kinds[0], (row,))
        self._answer_alone(bqual, kinds[1], self.gtrids[row], reply)
        columns.answer(within, reply)

    def _columns(self, bqual: str, kind: type, rows: Sequence[int]) -> list[tuple[ColumnsCall, list[int]]]:
        """The columns in which these transactions are, and where in them."""
        wanted = [self.gtrids[row] for row in rows] or self.gtrids
        found = []
        for call in self.together.transport.columns:
            within = [row for row, gtrid in enumerate(call.request.gtrids) if gtrid in wanted]
            if call.bqual == bqual and type(call.request) is kind and within:
                found.append((call, within))
        return found

    def _answer_alone(self, bqual: str, kind: type, gtrid: str, reply: Message | CallFailed) -> None:
        calls = [call for call in self.alone.transport.calls if call.bqual == bqual and isinstance(call.request, kind)]
        (call,) = [call for call in calls if call.request.gtrid == gtrid]
        self.alone.transport.calls.remove(call)
        call.answer(reply)

    async def forced(self) -> None:
        """Let both logs force."""
        await forced()

    def assert_alike(self, *rows: int) -> None:
        """Every transaction, or some, is the same in both; who is asked shows it as if it had never been a row."""
        for row in rows or tuple(range(len(self.gtrids))):
            found = [life.driver.find(self.gtrids[row]) for life in self.lives]
            one, other = [every_field(running) for running in found if running is not None]
            assert one == other


async def pair(count: int, *bquals: str, timeout_s: float = 10.0, at_decision: bool = False, client: str = "") -> Pair:
    """Begin transactions in both."""
    together, alone = await start(), await start()
    return begun(together, alone, count, *bquals, timeout_s=timeout_s, at_decision=at_decision, client=client)


def begun(
    together: Life,
    alone: Life,
    count: int,
    *bquals: str,
    timeout_s: float = 10.0,
    at_decision: bool = False,
    client: str = "",
) -> Pair:
    """Begin transactions in these two."""
    gtrids = together.names(count, client)
    assert alone.names(count, client) == gtrids
    asked = rows_of(gtrids, count, *bquals, timeout_s=timeout_s, at_decision=at_decision)
    singles = []
    for row, gtrid in enumerate(gtrids):
        payloads = asked.payloads[row * len(bquals) : (row + 1) * len(bquals)]
        operations = [
            t.Operation(resource=resource, name=name, payload=payload)
            for resource, name, payload in zip(asked.resources, asked.names, payloads, strict=True)
        ]
        singles.append(Answers())
        alone.requests.execute(gtrid, asked.timeout_ms, operations, at_decision, singles[-1])
    rows = together.execute_rows(gtrids, *bquals, timeout_s=timeout_s, at_decision=at_decision)
    return Pair(together, alone, gtrids, rows, singles)
