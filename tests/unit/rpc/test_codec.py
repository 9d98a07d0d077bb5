"""Every value of the core has its one place on the wire, and the wire has no place that the core can't fill."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest
from google.protobuf.descriptor import EnumDescriptor

from coordinator.protocol import events as e
from coordinator.protocol.branch import Branch
from coordinator.protocol.states import BranchState, Cause, Decision, Outcome, TransactionState, Vote
from coordinator.protocol.transaction import GlobalTransaction
from coordinator.rpc import codec
from coordinator.runtime.requests import Inquiry, Standing
from coordinator.runtime.resolution import ACTIONS
from coordinator.runtime.running import Running
from handfast.v1 import admin_pb2 as a
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t

GTRID = "k3v9q2xw-3-0m9xk2f1c-2s"

TABLES: list[tuple[type[Enum], Mapping[Any, int], EnumDescriptor]] = [
    (TransactionState, codec.TRANSACTION_STATES, t.TransactionState.DESCRIPTOR),
    (BranchState, codec.BRANCH_STATES, t.BranchState.DESCRIPTOR),
    (Vote, codec.VOTES, t.Vote.DESCRIPTOR),
    (Outcome, codec.OUTCOMES, t.Outcome.DESCRIPTOR),
    (Cause, codec.CAUSES, t.AbortCause.DESCRIPTOR),
    (Standing, codec.STANDINGS, c.Standing.DESCRIPTOR),
]


@pytest.mark.parametrize(("core", "table", "wire"), TABLES, ids=[core.__name__ for core, _, _ in TABLES])
def test_core_and_wire_name_the_same_values(core: type[Enum], table: Mapping[Any, int], wire: EnumDescriptor) -> None:
    assert set(table) == set(core)
    assert sorted(table.values()) == [number for number in sorted(wire.values_by_number) if number != 0]


@pytest.mark.parametrize(("core", "table", "wire"), TABLES, ids=[core.__name__ for core, _, _ in TABLES])
def test_core_and_wire_spell_their_values_alike(
    core: type[Enum], table: Mapping[Any, int], wire: EnumDescriptor
) -> None:
    for member, number in table.items():
        assert wire.values_by_number[number].name.endswith(f"_{member.name}")


def test_every_state_of_the_wire_can_be_asked_for() -> None:
    assert {codec.TRANSACTION_STATES[state] for state in codec.STATES_OF_WIRE.values()} == set(codec.STATES_OF_WIRE)


def test_every_action_of_the_wire_is_one_that_resolution_knows() -> None:
    assert sorted(codec.ACTIONS_OF_WIRE) == sorted(number for number in a.ResolveAction.values() if number != 0)
    assert sorted(codec.ACTIONS_OF_WIRE.values()) == sorted(ACTIONS)


# -- branches worth telling of -------------------------------------------------------------------------------------


def running_with(*branches: Branch, decision: Decision | None = None) -> Running:
    machine = GlobalTransaction(GTRID, deadline_s=10.0)
    machine.branches = {branch.bqual: branch for branch in branches}
    machine.decision = decision
    return Running(machine, begun_unix_ms=1000, deadline_unix_ms=5000)


def ended(bqual: str, outcome: Outcome, reason: str = "") -> Branch:
    branch = Branch(bqual, vote=Vote.YES, reason=reason)
    branch.end(outcome)
    return branch


def told_of(*branches: Branch) -> list[str]:
    return [branch.bqual for branch in codec.telling_branches(running_with(*branches))]


def test_branches_that_did_as_decided_are_not_told_of() -> None:
    assert told_of(ended("a.one", Outcome.COMMITTED), ended("b.one", Outcome.ABORTED)) == []


def test_branches_that_said_no_failed_ended_heuristically_or_are_pending_are_told_of() -> None:
    no = ended("no.one", Outcome.ABORTED)
    no.vote = Vote.NO
    lost = ended("lost.one", Outcome.ABORTED, reason="gone")
    hazard = ended("hazard.one", Outcome.HEURISTIC_HAZARD)
    assert told_of(no, lost, hazard, Branch("pending.one")) == ["no.one", "lost.one", "hazard.one", "pending.one"]


def test_a_branch_is_told_of_with_all_that_is_known() -> None:
    branch = Branch("accounts.a7", BranchState.IN_DOUBT, Vote.YES, "xid 7", attempts=3, last_error="no route")
    running = running_with(branch)
    running.next_attempt_unix_ms = {"accounts.a7": 1234}
    assert codec.branch_message(branch, running) == t.Branch(
        bqual="accounts.a7",
        resource="accounts",
        instance="a7",
        state=t.BRANCH_STATE_IN_DOUBT,
        vote=t.VOTE_YES,
        attempts=3,
        next_attempt_unix_ms=1234,
        last_error="no route",
        proof="xid 7",
    )


# -- answers -------------------------------------------------------------------------------------------------------


def test_an_aborted_transaction_s_answer_names_the_cause() -> None:
    running = running_with(decision=Decision.ABORT)
    running.transaction.cause, running.transaction.reason = Cause.DEADLINE, "too late"
    expected = {"gtrid": GTRID, "outcome": t.OUTCOME_ABORTED, "cause": t.ABORT_CAUSE_DEADLINE, "reason": "too late"}
    assert codec.commit_response(running) == c.CommitResponse(**expected)  # type: ignore[arg-type] # by their names
    assert codec.execute_response(running) == c.ExecuteResponse(**expected)  # type: ignore[arg-type] # by their names


def test_an_answer_that_nobody_knows_yet_has_no_outcome() -> None:
    assert codec.commit_response(running_with()).outcome == t.OUTCOME_UNSPECIFIED


def test_results_are_given_in_the_order_of_the_request_and_only_when_committed() -> None:
    running = running_with(decision=Decision.COMMIT)
    running.result_places = (("b.one", 0), ("a.one", 0), ("b.one", 1))
    running.results = {"a.one": [b"2"], "b.one": [b"1", b"3"]}
    assert list(codec.execute_response(running).results) == [b"1", b"2", b"3"]
    running.transaction.decision = Decision.ABORT
    assert list(codec.execute_response(running).results) == []


@pytest.mark.parametrize(("now", "expected"), [(1000, 1000), (4500, 500), (4950, 100), (9000, 100)])
def test_an_undecided_transaction_is_asked_for_again_when_it_may_be_decided(now: int, expected: int) -> None:
    response = codec.inquire_response(GTRID, Inquiry(Standing.UNDECIDED, running_with()), now)
    assert response.retry_after_ms == expected


@pytest.mark.parametrize(
    ("standing", "outcome", "cause"),
    [
        (Standing.ABORT, t.OUTCOME_ABORTED, t.ABORT_CAUSE_PRESUMED),
        (Standing.COMMIT, t.OUTCOME_COMMITTED, t.ABORT_CAUSE_UNSPECIFIED),
        (Standing.UNKNOWN, t.OUTCOME_UNSPECIFIED, t.ABORT_CAUSE_UNSPECIFIED),
    ],
)
def test_without_a_transaction_the_standing_is_all_there_is_to_tell(
    standing: Standing, outcome: int, cause: int
) -> None:
    response = codec.inquire_response(GTRID, Inquiry(standing, None), 0)
    assert (response.standing, response.outcome, response.cause) == (codec.STANDINGS[standing], outcome, cause)


def test_a_report_puts_an_operator_s_intervention_in_its_place() -> None:
    running = running_with()
    running.history = [(1, e.Enlisted("a.one")), (3, e.CommitRequested(0.0))]
    intervention = a.HistoryEntry(unix_ms=2, event="Resolved")
    running.begun_unix_ms = 0
    message = codec.transaction_with_history(running, [intervention])
    assert [entry.event for entry in message.history] == ["Enlisted", "Resolved", "CommitRequested"]
