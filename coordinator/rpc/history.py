"""A transaction's history as lines that a person reads: what happened, to which branch, and the particulars."""

from __future__ import annotations

from coordinator.log.records import ResolutionRecord
from coordinator.protocol import events as e
from coordinator.runtime.running import Running
from handfast.v1 import admin_pb2 as a


def history_entries(running: Running) -> list[a.HistoryEntry]:
    """The history, oldest first. Of a transaction that only the log remembers: the moments that the log has."""
    begun = [_entry(running.begun_unix_ms, "Begun", detail=running.client)] if running.begun_unix_ms else []
    if running.history:
        return begun + [event_entry(unix_ms, event) for unix_ms, event in running.history]
    return begun + _moments(running)


def event_entry(unix_ms: int, event: e.Event) -> a.HistoryEntry:
    """Show one event."""
    return _entry(unix_ms, type(event).__name__, getattr(event, "bqual", ""), _detail(event))


def resolution_entry(record: ResolutionRecord) -> a.HistoryEntry:
    """Show an operator's intervention."""
    who = record.operator or "an operator"
    what = f"{record.action}, against the decision" if record.heuristic else record.action
    why = f": {record.reason}" if record.reason else ""
    return _entry(
        record.unix_ms, "Resolved", detail=f"{who}: {what}{why} ({record.state_before} → {record.state_after})"
    )


def _moments(running: Running) -> list[a.HistoryEntry]:
    machine = running.transaction
    entries = []
    if running.decided_unix_ms and machine.decision is not None:
        entries.append(_entry(running.decided_unix_ms, "DecisionStood", detail=machine.decision.value))
    if running.ended_unix_ms and machine.outcome is not None:
        entries.append(_entry(running.ended_unix_ms, "Ended", detail=machine.outcome.value))
    return entries


def _entry(unix_ms: int, event: str, bqual: str = "", detail: str = "") -> a.HistoryEntry:
    return a.HistoryEntry(unix_ms=unix_ms, event=event, bqual=bqual, detail=detail)


def _detail(event: e.Event) -> str:
    match event:
        case e.VoteReceived(vote=vote, proof=proof, reason=reason, reason_code=code):
            return _sentence(vote.value, f"proof {proof}" if proof else "", code, reason)
        case e.OnePhaseAnswered(outcome=outcome, reason=reason, reason_code=code):
            return _sentence(outcome.value, code, reason)
        case e.BranchEnded(outcome=outcome, evidence=evidence):
            return _sentence(outcome.value, evidence)
        case e.RollbackRequested(cause=cause, reason=reason):
            return _sentence(cause.value, reason)
        case e.DecisionStood(decision=decision):
            return decision.value
        case e.ResolvedAgainstDecision(decision=decision, operator=operator):
            return f"{decision.value}, by {operator}"
        case e.VoteLost(reason=reason) | e.DecisionRefused(reason=reason) | e.DeliveryFailed(reason=reason):
            return reason
        case e.OnePhaseUnsupported():
            return "its participant has no CommitOnePhase; two phases instead"
    return ""


def _sentence(*parts: str) -> str:
    return ": ".join(part for part in parts if part)
