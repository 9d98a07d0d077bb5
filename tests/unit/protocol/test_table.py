"""The transition table, row by row: each can be taken, and nothing but these rows can."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import pytest

from coordinator.protocol import events as e
from coordinator.protocol import transaction as transaction_module
from coordinator.protocol.states import Decision, Outcome, TransactionState
from coordinator.protocol.table import TRANSITIONS
from coordinator.protocol.transaction import GlobalTransaction, ProtocolViolated
from tests.unit.protocol.machines import (
    ABORT_STOOD,
    COMMIT,
    COMMIT_LATE,
    DEADLINE,
    FORGOTTEN,
    REFUSED,
    ROLLBACK,
    STOOD,
    A,
    B,
    aborting,
    after,
    against,
    committing,
    due,
    ended,
    failed,
    lost,
    no,
    one_phase,
    read_only,
    rolled_back,
    transaction,
    yes,
)

S = TransactionState

ALONE = (A,)


def preparing() -> GlobalTransaction:
    return after(COMMIT)


def offered() -> GlobalTransaction:
    return after(COMMIT, yes(A), yes(B))


def asked_alone() -> GlobalTransaction:
    return after(COMMIT, of=ALONE)


def aborting_with_votes_awaited() -> GlobalTransaction:
    """The deadline passed; both branches rolled back; neither Prepare was answered."""
    return after(COMMIT, DEADLINE, rolled_back(A), rolled_back(B))


def one_left() -> GlobalTransaction:
    return after(COMMIT, yes(A), yes(B), STOOD, ended(A))


def nearly_given_up() -> GlobalTransaction:
    machine = aborting(A)
    for _ in range(transaction_module.ROLLBACK_ATTEMPTS_MAX - 1):
        machine.step(failed(A))
        machine.step(due(A))
    return machine


def committed() -> GlobalTransaction:
    return after(COMMIT, yes(A), yes(B), STOOD, ended(A), ended(B))


def aborted() -> GlobalTransaction:
    return after(ROLLBACK, rolled_back(A), rolled_back(B))


aborting_alone = lambda: aborting(A)  # noqa: E731 - one word for the table below
committing_both = lambda: committing(A, B)  # noqa: E731
aborting_both = lambda: aborting(A, B)  # noqa: E731
UNSUPPORTED = e.OnePhaseUnsupported(A)

Bring = Callable[[], GlobalTransaction]

ROWS: dict[S, list[tuple[Bring, e.Event, S]]] = {
    S.ACTIVE: [
        (transaction, e.Enlisted(A), S.ACTIVE),
        (after, COMMIT, S.PREPARING),
        (transaction, COMMIT, S.COMMITTED),
        (after, COMMIT_LATE, S.ABORTING),
        (transaction, COMMIT_LATE, S.ABORTED),
        (after, ROLLBACK, S.ABORTING),
        (transaction, ROLLBACK, S.ABORTED),
        (after, DEADLINE, S.ABORTING),
        (transaction, DEADLINE, S.ABORTED),
    ],
    S.PREPARING: [
        (preparing, yes(A), S.PREPARING),
        (preparing, no(A), S.ABORTING),
        (lambda: after(COMMIT, read_only(A)), no(B), S.ABORTED),
        (lambda: after(COMMIT, read_only(A)), read_only(B), S.COMMITTED),
        (preparing, lost(A), S.ABORTING),
        (offered, STOOD, S.COMMITTING),
        (offered, ABORT_STOOD, S.ABORTING),
        (offered, REFUSED, S.ABORTING),
        (asked_alone, one_phase(A, Outcome.COMMITTED), S.COMMITTED),
        (asked_alone, one_phase(A, Outcome.ABORTED), S.ABORTED),
        (asked_alone, UNSUPPORTED, S.PREPARING),
        (preparing, ROLLBACK, S.ABORTING),
        (offered, ROLLBACK, S.PREPARING),
        (preparing, DEADLINE, S.ABORTING),
        (offered, DEADLINE, S.PREPARING),
        (asked_alone, failed(A), S.PREPARING),
        (asked_alone, due(A), S.PREPARING),
        (preparing, COMMIT, S.PREPARING),
    ],
    S.COMMITTING: [
        (committing_both, ended(A), S.COMMITTING),
        (one_left, ended(B), S.COMMITTED),
        (committing_both, failed(A), S.COMMITTING),
        (committing_both, due(A), S.COMMITTING),
        (committing_both, against(Decision.ABORT), S.COMMITTING),
        (committing_both, COMMIT, S.COMMITTING),
        (committing_both, ROLLBACK, S.COMMITTING),
        (committing_both, DEADLINE, S.COMMITTING),
    ],
    S.ABORTING: [
        (aborting_both, rolled_back(A), S.ABORTING),
        (aborting_alone, rolled_back(A), S.ABORTED),
        (aborting_both, failed(A), S.ABORTING),
        (nearly_given_up, failed(A), S.ABORTED),
        (aborting_both, due(A), S.ABORTING),
        (aborting_with_votes_awaited, no(A), S.ABORTING),
        (lambda: after(COMMIT, DEADLINE, rolled_back(A), rolled_back(B), no(A)), no(B), S.ABORTED),
        (aborting_with_votes_awaited, lost(A), S.ABORTING),
        (lambda: after(COMMIT, DEADLINE, rolled_back(A), rolled_back(B), lost(A)), lost(B), S.ABORTED),
        (aborting_both, against(Decision.COMMIT), S.ABORTING),
        (aborting_both, COMMIT, S.ABORTING),
        (aborting_both, ROLLBACK, S.ABORTING),
        (aborting_both, DEADLINE, S.ABORTING),
    ],
    S.COMMITTED: [
        (committed, ended(A), S.COMMITTED),
        (committed, failed(A), S.COMMITTED),
        (committed, due(A), S.COMMITTED),
        (committed, COMMIT, S.COMMITTED),
        (committed, ROLLBACK, S.COMMITTED),
        (committed, DEADLINE, S.COMMITTED),
        (committed, FORGOTTEN, S.FORGOTTEN),
    ],
    S.ABORTED: [
        (aborted, rolled_back(A), S.ABORTED),
        (aborted, failed(A), S.ABORTED),
        (aborted, due(A), S.ABORTED),
        (aborted, COMMIT, S.ABORTED),
        (aborted, ROLLBACK, S.ABORTED),
        (aborted, DEADLINE, S.ABORTED),
        (aborted, FORGOTTEN, S.FORGOTTEN),
    ],
    S.FORGOTTEN: [],
}
"""By state: a machine that is in it, an event, and the state after it."""

A_VALUE_OF: dict[type, e.Event] = {
    e.Enlisted: e.Enlisted(A),
    e.CommitRequested: COMMIT,
    e.RollbackRequested: ROLLBACK,
    e.VoteReceived: yes(A),
    e.VoteLost: lost(A),
    e.DecisionStood: STOOD,
    e.DecisionRefused: REFUSED,
    e.OnePhaseAnswered: one_phase(A, Outcome.COMMITTED),
    e.OnePhaseUnsupported: UNSUPPORTED,
    e.BranchEnded: ended(A),
    e.DeliveryFailed: failed(A),
    e.RetryDue: due(A),
    e.DeadlinePassed: DEADLINE,
    e.ResolvedAgainstDecision: against(Decision.ABORT),
    e.Forgotten: FORGOTTEN,
}

MACHINES: dict[S, Bring] = {
    S.ACTIVE: after,
    S.PREPARING: preparing,
    S.COMMITTING: committing_both,
    S.ABORTING: aborting_both,
    S.COMMITTED: committed,
    S.ABORTED: aborted,
    S.FORGOTTEN: lambda: after(ROLLBACK, rolled_back(A), rolled_back(B), FORGOTTEN),
}

MISSING = [(state, kind) for state in S for kind in e.EVENT_TYPES if kind not in TRANSITIONS[state]]


@pytest.mark.parametrize(
    ("state", "row"),
    [
        pytest.param(state, row, id=f"{state.name}-{type(row[1]).__name__}-{row[2].name}")
        for state, rows in ROWS.items()
        for row in rows
    ],
)
def test_each_row_of_the_table_can_be_taken(state: S, row: tuple[Bring, e.Event, S]) -> None:
    bring, event, expected = row
    machine = bring()
    assert machine.state is state
    machine.step(event)
    assert machine.state is expected


def test_the_rows_above_are_the_table() -> None:
    taken = {(state, type(event), after) for state, rows in ROWS.items() for _, event, after in rows}
    table = {
        (state, kind, after) for state, row in TRANSITIONS.items() for kind, afters in row.items() for after in afters
    }
    assert taken == table


@pytest.mark.parametrize(("state", "kind"), [pytest.param(s, k, id=f"{s.name}-{k.__name__}") for s, k in MISSING])
def test_a_pair_that_is_not_in_the_table_raises_and_changes_nothing(state: S, kind: type) -> None:
    machine = MACHINES[state]()
    before = {slot: getattr(machine, slot) for slot in GlobalTransaction.__slots__}
    with pytest.raises(ProtocolViolated, match=f"t: {kind.__name__} in state {state.value} is not in the table"):
        machine.step(A_VALUE_OF[kind])
    assert {slot: getattr(machine, slot) for slot in GlobalTransaction.__slots__} == before


def test_a_handler_that_leaves_its_row_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    only_staying = MappingProxyType({**TRANSITIONS, S.ACTIVE: {e.CommitRequested: (S.ACTIVE,)}})
    monkeypatch.setattr(transaction_module, "TRANSITIONS", only_staying)
    machine = GlobalTransaction("t", 10.0)
    with pytest.raises(ProtocolViolated, match="CommitRequested in state active is not in the table with committed"):
        machine.step(COMMIT)


def test_every_event_has_a_handler_and_a_row() -> None:
    in_table = {kind for row in TRANSITIONS.values() for kind in row}
    assert in_table == set(e.EVENT_TYPES) == set(A_VALUE_OF)
