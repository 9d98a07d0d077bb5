"""Rows against the same transactions by themselves, through orders of events that nobody thought of.

Whatever a coordinator waits for may be answered next, well or badly, in columns or not; somebody may ask; time may
pass; the log may take its time. At each step both coordinators must wait for the same messages, and at the end every
transaction must be the same in both, and every asker must have been told the same, once.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from coordinator.rpc.codec import execute_response
from coordinator.runtime.running import Running
from handfast.catalog import HandfastFault
from handfast.frames import CallFailed
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.alike import begun
from tests.unit.runtime.scripted import A, Answers, B, C, ColumnsCall, Life, memory_log, refused, start, timed_out
from tests.unit.runtime.test_trace import Kept

Key = tuple[str, str, str]
"""What is waited for: the branch, the kind of request, the transaction."""

KINDS: dict[type, str] = {
    p.PrepareColumns: "Prepare",
    p.PrepareRequest: "Prepare",
    p.CommitColumns: "Commit",
    p.ParticipantCommitRequest: "Commit",
    p.ParticipantRollbackRequest: "Rollback",
}


class Awaited:
    """The messages of one coordinator that have no answer yet."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._answered: set[tuple[int, int]] = set()

    def rows(self) -> list[tuple[Key, ColumnsCall, int]]:
        """Those that went in columns."""
        return [
            ((call.bqual, KINDS[type(call.request)], gtrid), call, row)
            for call in self._life.transport.columns
            for row, gtrid in enumerate(call.request.gtrids)
            if (id(call), row) not in self._answered
        ]

    def keys(self) -> list[Key]:
        """All, in the order of their names."""
        alone = [(call.bqual, KINDS[type(call.request)], call.request.gtrid) for call in self._life.transport.calls]
        return sorted([*(key for key, _, _ in self.rows()), *alone])

    def answer(self, key: Key, reply: Message | CallFailed) -> None:
        """Let the oldest of this kind be answered by itself."""
        for known, columns, row in self.rows():
            if known == key:
                self._answered.add((id(columns), row))
                columns.answer(row, reply)
                return
        for call in self._life.transport.calls:
            if (call.bqual, KINDS[type(call.request)], call.request.gtrid) == key:
                self._life.transport.calls.remove(call)
                call.answer(reply)
                return
        raise AssertionError(f"nothing like {key} is waited for")

    def answer_columns(self, columns: ColumnsCall, rows: list[int]) -> None:
        """Let rows of columns be answered well, with one message."""
        self._answered.update((id(columns), row) for row in rows)
        if isinstance(columns.request, p.PrepareColumns):
            columns.yes(*rows)
        else:
            columns.done(*rows)


def well(columns: ColumnsCall, row: int) -> Message:
    """What a participant answers to a row, as a single call is answered."""
    if isinstance(columns.request, p.PrepareColumns):
        return p.PrepareResponse(vote=t.VOTE_YES, proof=columns.proof(row), results=[columns.result(row)])
    return p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)


def badly(key: Key, chance: random.Random) -> Message | CallFailed:
    """What may come instead."""
    bqual, kind, _ = key
    may_come: list[Message | CallFailed]
    if kind == "Prepare":
        no = p.PrepareResponse(vote=t.VOTE_NO, reason="no money")
        yes = p.PrepareResponse(vote=t.VOTE_YES, proof="xid", results=[b"by itself"])
        may_come = [no, yes, yes, p.PrepareResponse(vote=t.VOTE_READ_ONLY), timed_out(bqual)]
        return chance.choice(may_come)
    if kind == "Rollback":
        may_come = [*[p.ParticipantRollbackResponse(outcome=t.OUTCOME_ABORTED)] * 3, timed_out(bqual)]
        return chance.choice(may_come)
    done = p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)
    by_hand = p.ParticipantCommitResponse(outcome=t.OUTCOME_HEURISTIC_ROLLBACK, evidence="by hand")
    may_come = [done, done, timed_out(bqual), by_hand]
    return chance.choice(may_come)


class Disk:
    """Takes nothing while it is full."""

    full = False

    def __call__(self, count: int) -> None:
        if self.full:
            refused(count)


async def begun_on(disk: Disk, *, trace: bool) -> tuple[Life, Kept]:
    """A coordinator whose log is on this disk, and its trace."""
    life, kept = await start(memory_log(disk)), Kept()
    if trace:
        kept.follow(life)
    return life, kept


class Course:
    """One course of events for two coordinators.

    Args:
        together: the one with rows.
        alone: the one without.
        disk: on which both logs are.
        chance: what happens next.
    """

    def __init__(self, together: Life, alone: Life, disk: Disk, chance: random.Random) -> None:
        self._chance = chance
        self._disk = disk
        bquals = (A, B, C)[: chance.choice([2, 3])]
        self.both = begun(together, alone, chance.randint(1, 5), *bquals, at_decision=chance.random() < 0.3)
        self._awaited = [Awaited(life) for life in self.both.lives]
        self._asked: list[tuple[Answers, Answers]] = []
        self.told: dict[int, list[Message | str]] = {}
        self.told_alone: dict[int, list[Message | str]] = {}
        self._steps: list[tuple[Callable[[], None], int]] = [
            (self._answer_some, 60),
            (self._answer_one, 12),
            (self._ask, 3),
            (lambda: self.both.advance(self._chance.choice([0.01, 0.3, 2.0, 6.0])), 8),
            (self._stand_still, 1),
            (self._hold, 3),
            (self._fill_the_disk, 2),
            (self._look_on, 1),
            (self._break_the_way, 1),
        ]

    async def run(self, steps: int) -> None:
        doing, weights = zip(*self._steps, strict=True)
        for _ in range(steps):
            self._chance.choices(doing, weights)[0]()
            if self._chance.random() < 0.5:
                await self.both.forced()
            self._note()
            if self._chance.random() < 0.1:
                assert self._awaited[0].keys() == self._awaited[1].keys()
        self._disk.full = False
        for life in self.both.lives:
            life.log.release()
        for _ in range(6):
            self.both.advance(60.0)
            await self.both.forced()
            self._note()
            assert self._awaited[0].keys() == self._awaited[1].keys()

    def _answer_some(self) -> None:
        rows = self._awaited[0].rows()
        if not rows:
            self._answer_one()
            return
        columns = self._chance.choice(rows)[1]
        open_rows = [row for _, call, row in rows if call is columns]
        chosen = self._chance.sample(open_rows, self._chance.randint(1, len(open_rows)))
        for row in chosen:
            key = (columns.bqual, KINDS[type(columns.request)], columns.request.gtrids[row])
            self._awaited[1].answer(key, well(columns, row))
        self._awaited[0].answer_columns(columns, chosen)

    def _answer_one(self) -> None:
        if keys := self._awaited[0].keys():
            key = self._chance.choice(keys)
            reply = badly(key, self._chance)
            for awaited in self._awaited:
                awaited.answer(key, reply)

    def _ask(self) -> None:
        gtrid = self._chance.choice(self.both.gtrids)
        how = self._chance.choice(["commit", "rollback", "inquire", "show"])
        if how == "commit":
            one, other = [life.commit(gtrid) for life in self.both.lives]
            self._asked.append((one, other))
        elif how == "rollback":
            one, other = [life.rollback(gtrid) for life in self.both.lives]
            self._asked.append((one, other))
        elif how == "inquire":
            standings = [life.requests.inquire(gtrid, A, 0).standing for life in self.both.lives]
            assert standings[0] is standings[1]
        else:
            self.both.assert_alike(self.both.gtrids.index(gtrid))

    def _hold(self) -> None:
        held = self._chance.random() < 0.5
        for life in self.both.lives:
            if held:
                life.log.hold()
            else:
                life.log.release()

    def _fill_the_disk(self) -> None:
        self._disk.full = self._chance.random() < 0.5

    def _stand_still(self) -> None:
        for life in self.both.lives:
            life.clock.pause(4.0)

    def _look_on(self) -> None:
        for life in self.both.lives:
            life.driver.observers.append(lambda running: None)

    def _break_the_way(self) -> None:
        self.both.together.transport.by_columns.discard(B)

    def _note(self) -> None:
        """Spell what has just been told; later the transaction may be elsewhere."""
        for row, answer in self.both.rows.told[sum(map(len, self.told.values())) :]:
            self.told.setdefault(row, []).append(said(answer))
        for row, single in enumerate(self.both.singles):
            noted = self.told_alone.setdefault(row, [])
            noted += [said(answer) for answer in single.told[len(noted) :]]

    def assert_answered_alike(self) -> None:
        """Every asker once, and with the same words."""
        for row in range(len(self.both.gtrids)):
            assert self.told.get(row, []) == self.told_alone[row]
            assert len(self.told_alone[row]) <= 1
        for one, other in self._asked:
            assert [said(answer) for answer in one.told] == [said(answer) for answer in other.told]


def said(answer: Running | HandfastFault | tuple[str, list[bytes]]) -> Message | str:
    """What is said to who asked to execute it."""
    if isinstance(answer, HandfastFault):
        return f"{answer.code} {answer.gtrid}"
    if isinstance(answer, Running):
        return execute_response(answer)
    return c.ExecuteResponse(gtrid=answer[0], outcome=t.OUTCOME_COMMITTED, results=answer[1])


@pytest.mark.parametrize("seed", range(150))
async def test_rows_come_to_what_the_same_transactions_come_to_alone(seed: int) -> None:
    chance = random.Random(seed)
    disk, trace = Disk(), seed % 2 == 0
    together, with_rows = await begun_on(disk, trace=trace)
    alone, without = await begun_on(disk, trace=trace)
    course = Course(together, alone, disk, chance)
    await course.run(steps=chance.randint(5, 60))
    course.assert_answered_alike()
    course.both.assert_alike()
    assert together.driver.open_by_client == alone.driver.open_by_client
    assert together.driver.counters == alone.driver.counters | {"begun_together": len(course.both.gtrids)}
    for gtrid in course.both.gtrids:
        assert together.log.lookup(gtrid) == alone.log.lookup(gtrid)
        assert with_rows.of(gtrid) == without.of(gtrid)
