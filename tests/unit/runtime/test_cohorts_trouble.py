"""Rows in trouble: the log, observers, failpoints, defects. One row's trouble is no other's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from google.protobuf.message import Message

from coordinator.log.records import DecisionRecord, LoggedBranch
from coordinator.log.store import LogBroken, LogRefused
from coordinator.protocol.cohort import Cohort
from coordinator.protocol.states import Cause, Decision, Outcome, TransactionState
from coordinator.runtime.entropy import SeededEntropy
from coordinator.runtime.recovery import Recovery
from coordinator.runtime.running import Running
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.alike import begun, pair
from tests.unit.runtime.databases import Databases
from tests.unit.runtime.scripted import A, B, C, Life, RowAnswers, forced, memory_log, refused, rows_of, start

DONE = p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)


async def rows_in(life: Life, count: int = 3, *, at_decision: bool = False) -> tuple[list[str], RowAnswers]:
    gtrids = life.names(count, "billing")
    return gtrids, life.execute_rows(gtrids, A, B, at_decision=at_decision)


# -- the log -----------------------------------------------------------------------------------------------------------


async def test_rows_whose_records_the_log_refuses_abort() -> None:
    both = begun(await start(memory_log(refused)), await start(memory_log(refused)), 2, A, B)
    both.vote(A)
    both.vote(B)
    await both.forced()
    both.assert_alike()
    for life in both.lives:
        life.rolled_back(A, B, A, B)
    assert [both.rows.alone(row).transaction.cause for row in (0, 1)] == [Cause.LOG_REFUSED] * 2
    both.assert_alike()
    assert both.together.driver.open_by_client == {}


@pytest.mark.parametrize("row", [0, 1, 2])
async def test_a_row_against_which_an_abort_stands_aborts_and_the_others_commit(row: int) -> None:
    both = await pair(3, A, B)
    branches = (LoggedBranch(A, ""), LoggedBranch(B, ""))
    for life in both.lives:
        life.log.decide(DecisionRecord(both.gtrids[row], Decision.ABORT, branches, 1, 1, ""), lambda standing: None)
    both.vote(A)
    both.vote(B)
    await both.forced()
    others = [other for other in range(3) if other != row]
    both.acknowledge(A, *others)
    both.acknowledge(B, *others)
    assert list(both.rows.together) == others
    for life in both.lives:
        life.rolled_back(A, B)
    machine = both.rows.alone(row).transaction
    assert (machine.outcome, machine.cause) == (Outcome.ABORTED, Cause.OPERATOR)
    both.assert_alike()


async def test_of_rows_in_two_forces_only_the_refused_ones_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log takes what it is given when it has time, which may be half of a batch of rows."""
    life = await start()
    gtrids, answers = await rows_in(life, 4)
    life.log.hold()
    life.vote_rows(A, B)
    waiting: Any = life.log._waiting
    first, second = waiting[:2], waiting[2:]
    life.log._waiting = []
    life.log._deliver_failure(first, LogRefused("no space"))
    assert life.transport.shown() == [], "the word about the others is not there yet"
    life.log._waiting = second
    life.log.release()
    await forced()
    assert life.transport.shown() == [f"Rollback {A}", f"Rollback {B}"] * 2
    assert [list(call.request.gtrids) for call in life.transport.columns] == [gtrids[2:]] * 2
    life.acknowledge_rows(A, B)
    assert set(answers.together) == {2, 3}


async def test_a_log_that_breaks_under_rows_stops_the_process_and_answers_nobody() -> None:
    def breaks(count: int) -> None:
        raise OSError("the disk is gone")

    life = await start(memory_log(breaks))
    _, answers = await rows_in(life)
    life.vote_rows(A, B)
    await forced()
    assert [type(problem) for problem in life.broken] == [LogBroken]
    assert (answers.told, life.transport.shown(), life.transport.shown_columns()) == ([], [], [])


# -- the sweep ---------------------------------------------------------------------------------------------------------


async def test_the_sweep_for_orphans_touches_no_row_wherever_it_stands() -> None:
    """A row that it took for an orphan would be rolled back while it is being prepared or committed."""
    life = await start()
    gtrids, answers = await rows_in(life, 4)
    to_a, to_b = life.transport.columns
    life.transport.columns.clear()
    to_a.yes(1, 2, 3)
    to_b.yes(3)
    await forced()
    life.log.hold()
    to_b.yes(2)
    there = Databases(
        accounts={(gtrid, A) for gtrid in gtrids}, ledger={(gtrid, B) for gtrid in gtrids[2:]}, audit=set()
    )
    recovery = Recovery(life.requests, there.as_links(), SeededEntropy(3), interval_s=60.0)
    assert (await recovery.sweep(), there.told) == (0, [])
    assert life.driver.transactions.single == {}
    assert list(life.driver.transactions.rows) == gtrids
    assert answers.told == []


# -- who looks on ------------------------------------------------------------------------------------------------------


class Onlooker:
    """Notes where each transaction stands whenever it moved."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, TransactionState]] = []

    def __call__(self, running: Running) -> None:
        self.seen.append((running.gtrid, running.transaction.state))

    def of(self, gtrid: str) -> list[TransactionState]:
        return [state for other, state in self.seen if other == gtrid]


async def test_while_somebody_looks_on_nothing_begins_as_a_row() -> None:
    life = await start()
    life.driver.observers.append(Onlooker())
    life.transport.by_columns.update((A, B))
    assert list(life.rows.execute(rows_of(life.names(4), 4, A, B), RowAnswers())) == []
    assert len(life.driver.transactions) == 0


@pytest.mark.parametrize("stage", range(5))
async def test_who_begins_to_look_on_sees_every_later_move_of_every_row(stage: int) -> None:
    both = await pair(3, A, B)

    async def all_told() -> None:
        await both.forced()
        for life in both.lives:
            commits = [call for call in life.transport.calls if type(call.request) is p.ParticipantCommitRequest]
            if life is both.together:
                for call in commits:
                    both._answer_alone(call.bqual, type(call.request), call.request.gtrid, DONE)
                    call.answer(DONE)

    steps: list[Callable[[], None]] = [
        lambda: both.vote(A),
        lambda: both.vote(B),
        lambda: None,
        lambda: both.acknowledge(A),
        lambda: both.acknowledge(B),
    ]
    onlookers = Onlooker(), Onlooker()
    for at, step in enumerate(steps):
        if at == stage:
            for life, onlooker in zip(both.lives, onlookers, strict=True):
                life.driver.observers.append(onlooker)
        step()
        if at == 2:
            await all_told()
    for gtrid in both.gtrids:
        assert onlookers[0].of(gtrid) == onlookers[1].of(gtrid)
        assert onlookers[0].of(gtrid)[-1] is TransactionState.COMMITTED
    assert sorted(both.rows.rows) == [0, 1, 2]
    both.assert_alike()


async def test_with_an_armed_failpoint_nothing_goes_as_a_row() -> None:
    """A point is reached by each transaction by itself, and its crash is between two exact messages."""
    life = await start(failpoint="mid-commit=stop")
    life.transport.by_columns.update((A, B))
    assert list(life.rows.execute(rows_of(life.names(4), 4, A, B), RowAnswers())) == []


# -- defects -----------------------------------------------------------------------------------------------------------


def fails(*args: object, **more: object) -> None:
    raise RuntimeError("a defect")


async def no_other_trouble(life: Life, gtrids: Sequence[str]) -> None:
    """Rows of the same cohort that the defect did not touch go on to their end."""
    for call in list(life.transport.columns):
        life.transport.columns.remove(call)
        rows = [row for row, gtrid in enumerate(call.request.gtrids) if gtrid in gtrids]
        if rows and isinstance(call.request, p.PrepareColumns):
            call.yes(*rows)
    await forced()
    for call in life.transport.columns:
        call.done()


@pytest.mark.parametrize("step", ["voted", "decided", "acknowledged"])
async def test_a_defect_in_a_step_sets_its_rows_aside_and_no_others(
    step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    life = await start()
    gtrids, answers = await rows_in(life, 4)
    to_a, to_b = life.transport.columns
    with monkeypatch.context() as planted:
        if step == "voted":
            planted.setattr(Cohort, step, fails)
        to_a.yes(0, 1)
        if step == "decided":
            planted.setattr(Cohort, step, fails)
        if step != "voted":
            to_b.yes(0, 1)
            await forced()
        if step == "acknowledged":
            planted.setattr(Cohort, step, fails)
            life.transport.columns[2].done()
    assert [answers.fault(row).code for row in (0, 1)] == ["INTERNAL"] * 2
    assert [answers.fault(row).gtrid for row in (0, 1)] == gtrids[:2]
    assert f"transaction {gtrids[0]} is set aside" in caplog.text
    assert [life.driver.transactions.single[gtrid].broken for gtrid in gtrids[:2]] == ["a defect"] * 2
    life.transport.columns[:] = [to_a, to_b]
    await no_other_trouble(life, gtrids[2:])
    assert set(answers.together) == {2, 3}
    assert len(answers.told) == 4
    assert life.driver.open_by_client == {"billing": 2}
    life.clock.advance(60.0)
    assert len(answers.told) == 4


async def test_what_comes_for_a_row_that_was_set_aside_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    life = await start()
    _, answers = await rows_in(life, 2)
    to_a, to_b = life.transport.columns
    with monkeypatch.context() as planted:
        planted.setattr(Cohort, "voted", fails)
        to_a.yes()
    to_b.yes()
    await forced()
    assert answers.rows == [0, 1]
    assert life.transport.shown() == []
    assert life.log.counters()["decisions"] == 0


@pytest.mark.parametrize("at_decision", [False, True], ids=["applied", "decided"])
@pytest.mark.parametrize("phase", [p.PrepareColumns, p.CommitColumns])
async def test_a_transport_that_fails_leaves_nobody_without_an_answer(
    phase: type[Message], at_decision: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = await start()

    def fails_for(bqual: str, columns: Message, *args: Any, **more: Any) -> None:
        if isinstance(columns, phase) and bqual == B:
            fails()
        send(bqual, columns, *args, **more)

    send = life.transport.send_columns
    monkeypatch.setattr(life.transport, "send_columns", fails_for)
    _, answers = await rows_in(life, 2, at_decision=at_decision)
    life.transport.columns[0].yes()
    if phase is p.CommitColumns:
        life.transport.columns[1].yes()
        await forced()
    assert answers.rows == [0, 1]
    if at_decision and phase is p.CommitColumns:
        assert answers.alone(0).outcome is Outcome.COMMITTED, "the decision stands, and that is what they asked for"
    else:
        assert answers.fault(0).code == answers.fault(1).code == "INTERNAL"


async def test_an_end_that_can_not_be_written_sets_its_rows_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    life = await start()
    gtrids, answers = await rows_in(life, 2)
    life.vote_rows(A, B)
    await forced()
    for write in ("end", "end_all"):
        monkeypatch.setattr(life.log, write, fails, raising=False)
    life.acknowledge_rows(A, B)
    assert [answers.fault(row).code for row in (0, 1)] == ["INTERNAL"] * 2
    for gtrid in gtrids:
        running = life.driver.find(gtrid)
        assert running is not None
        assert running.broken
    assert life.driver.open_by_client == {"billing": 2}
    assert life.driver.counters["committed"] == 0


async def test_a_row_whose_past_can_not_be_told_is_set_aside_when_somebody_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = await start()
    gtrids, answers = await rows_in(life, 3)
    leave = Cohort.leave

    def leaves(cohort: Cohort, row: int) -> Any:
        return fails() if row == 1 else leave(cohort, row)

    monkeypatch.setattr(Cohort, "leave", leaves)
    asked = life.commit(gtrids[1])
    assert asked.fault.code == answers.fault(1).code == "INTERNAL"
    life.clock.advance(10.5)
    assert life.transport.shown() == [f"Rollback {A}", f"Rollback {B}"] * 2
    life.rolled_back(A, B, A, B)
    assert answers.rows == [1, 0, 2]


@pytest.mark.parametrize("at_decision", [False, True], ids=["applied", "decided"])
async def test_rows_whose_past_can_not_be_told_at_the_decision_are_set_aside_and_answered(
    at_decision: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = await start()
    _, answers = await rows_in(life, 2, at_decision=at_decision)
    life.vote_rows(A, B)
    monkeypatch.setattr(Cohort, "history", fails)
    monkeypatch.setattr(Cohort, "decided", fails)
    await forced()
    assert [answers.fault(row).code for row in (0, 1)] == ["INTERNAL"] * 2
    assert life.transport.shown_columns() == []


@pytest.mark.parametrize("at_decision", [False, True], ids=["applied", "decided"])
async def test_somebody_who_fails_to_take_answers_keeps_no_row_from_its_end(
    at_decision: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = await start()
    monkeypatch.setattr(RowAnswers, "one" if at_decision else "committed", fails)
    gtrids, _ = await rows_in(life, 2, at_decision=at_decision)
    life.vote_rows(A, B)
    await forced()
    life.acknowledge_rows(A, B)
    assert len(life.driver.transactions) == 0
    assert [running.outcome for running in map(life.driver.find, gtrids) if running] == [Outcome.COMMITTED] * 2
    assert "telling the outcome of" in caplog.text
    assert "is set aside" not in caplog.text


async def test_rows_that_go_on_alone_do_so_although_one_of_them_shows_a_defect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The way for columns is gone, and each row is told by itself: one that can't be must not keep the others."""
    life = await start()
    gtrids, answers = await rows_in(life, 3)
    life.vote_rows(A, B)
    life.transport.by_columns.clear()
    send = life.transport.send

    def fails_for(bqual: str, request: Any, *args: Any, **more: Any) -> None:
        if request.gtrid == gtrids[0]:
            fails()
        send(bqual, request, *args, **more)

    monkeypatch.setattr(life.transport, "send", fails_for)
    await forced()
    assert answers.fault(0).code == "INTERNAL"
    life.acknowledge(A, B, A, B)
    assert [answers.alone(row).outcome for row in (1, 2)] == [Outcome.COMMITTED] * 2


async def test_rows_of_three_branches_are_held_to_all_of_them() -> None:
    life = await start()
    gtrids = life.names(2)
    answers = life.execute_rows(gtrids, A, B, C)
    life.vote_rows(A, B)
    await forced()
    assert life.log.counters()["forces"] == 0
    life.vote_rows(C)
    await forced()
    life.acknowledge_rows(A, B)
    assert answers.told == []
    life.acknowledge_rows(C)
    assert [len(results) for _, results in answers.together.values()] == [3, 3]
