"""The history in words."""

import dataclasses

import pytest

from coordinator.log.records import ResolutionRecord
from coordinator.protocol import events as e
from coordinator.protocol.states import Cause, Decision, Outcome, Vote
from coordinator.rpc.history import event_entry, resolution_entry

EVENTS: dict[e.Event, tuple[str, str]] = {
    e.Enlisted("a.one"): ("a.one", ""),
    e.CommitRequested(1.0): ("", ""),
    e.RollbackRequested(Cause.CLIENT, "no longer wanted"): ("", "rolled back by the client: no longer wanted"),
    e.VoteReceived("a.one", Vote.YES, 1.0, proof="7"): ("a.one", "yes: proof 7"),
    e.VoteReceived("a.one", Vote.NO, 1.0, reason="full", reason_code="SLOTS"): ("a.one", "no: SLOTS: full"),
    e.VoteLost("a.one", "gone"): ("a.one", "gone"),
    e.DecisionStood(Decision.COMMIT): ("", "commit"),
    e.DecisionRefused("disk full"): ("", "disk full"),
    e.OnePhaseAnswered("a.one", Outcome.ABORTED, "full", "SLOTS"): ("a.one", "aborted: SLOTS: full"),
    e.OnePhaseUnsupported("a.one"): ("a.one", "its participant has no CommitOnePhase; two phases instead"),
    e.BranchEnded("a.one", Outcome.HEURISTIC_ROLLBACK, "xid 7"): ("a.one", "heuristic rollback: xid 7"),
    e.DeliveryFailed("a.one", "no route"): ("a.one", "no route"),
    e.RetryDue("a.one"): ("a.one", ""),
    e.DeadlinePassed(): ("", ""),
    e.ResolvedAgainstDecision(Decision.ABORT, "ann"): ("", "abort, by ann"),
    e.Forgotten(): ("", ""),
}


def test_every_event_is_shown_here() -> None:
    assert {type(event) for event in EVENTS} == set(e.EVENT_TYPES)


@pytest.mark.parametrize(("event", "expected"), EVENTS.items(), ids=map(repr, EVENTS))
def test_an_event_is_shown_with_its_branch_and_particulars(event: e.Event, expected: tuple[str, str]) -> None:
    entry = event_entry(5, event)
    assert (entry.unix_ms, entry.event) == (5, type(event).__name__)
    assert (entry.bqual, entry.detail) == expected


def test_an_intervention_is_shown_with_who_and_why() -> None:
    record = ResolutionRecord("g", "rollback", True, "ann", "it blocks", "committing", "heuristic", 9)
    assert resolution_entry(record).detail == (
        "ann: rollback, against the decision: it blocks (committing → heuristic)"
    )
    assert resolution_entry(dataclasses.replace(record, operator="", reason="", heuristic=False)).detail == (
        "an operator: rollback (committing → heuristic)"
    )
