"""The participant's trace: what each message asked of a branch, and what became of it (handfast.trace, docs/trace.md).

``TracedBranches`` is the branch protocol that tells of itself. It stands in for ``Branches`` when a trace is wanted, so
that a process without one runs no line of this module.
"""

from __future__ import annotations

from dataclasses import dataclass

from handfast.trace import Owner, Trace, trace_from_environment
from handfast.xid import Xid
from participant.clock import Clock
from participant.protocol import Branch, Branches, Decision, Event, Fate, Message, Outcome, Step, Voted
from participant.protocol.answers import Answer


class TracedBranches(Branches):
    """Branches that write a line for each message, and for each thing that happens to one of them.

    Args:
        trace: where to.
        bqual: as for Branches.
        memory_count_max: as for Branches.
        memory_age_s: as for Branches.
    """

    def __init__(self, trace: Trace, bqual: str, *, memory_count_max: int, memory_age_s: float) -> None:
        super().__init__(bqual, memory_count_max=memory_count_max, memory_age_s=memory_age_s)
        self._trace = trace
        self._message_under_way = False

    # -- messages --------------------------------------------------------------------------------------------------

    def on_prepare(
        self, gtrid: str, bqual: str, born_ms: int, deadline_s: float, now_s: float, *, operations: bool
    ) -> Step:
        """See Branches."""
        with _Told(self, Message.PREPARE, gtrid, bqual) as told:
            told.fields = {"deadline_s": deadline_s, "now_s": now_s, "operations": operations}
            told.step = super().on_prepare(gtrid, bqual, born_ms, deadline_s, now_s, operations=operations)
            return told.step

    def on_commit_one_phase(
        self, gtrid: str, bqual: str, born_ms: int, deadline_s: float, now_s: float, *, operations: bool
    ) -> Step:
        """See Branches."""
        with _Told(self, Message.COMMIT_ONE_PHASE, gtrid, bqual) as told:
            told.fields = {"deadline_s": deadline_s, "now_s": now_s, "operations": operations}
            told.step = super().on_commit_one_phase(gtrid, bqual, born_ms, deadline_s, now_s, operations=operations)
            return told.step

    def on_commit(self, gtrid: str, bqual: str) -> Step:
        """See Branches."""
        with _Told(self, Message.COMMIT, gtrid, bqual) as told:
            told.step = super().on_commit(gtrid, bqual)
            return told.step

    def on_rollback(self, gtrid: str, bqual: str, born_ms: int, now_s: float) -> Step:
        """See Branches."""
        with _Told(self, Message.ROLLBACK, gtrid, bqual) as told:
            told.step = super().on_rollback(gtrid, bqual, born_ms, now_s)
            return told.step

    # -- what else happens -----------------------------------------------------------------------------------------

    def begin(self, gtrid: str, born_ms: int, deadline_s: float) -> Branch:
        """See Branches."""
        branch = super().begin(gtrid, born_ms, deadline_s)
        if not self._message_under_way:
            fields = {"deadline_s": deadline_s}
            self._trace.note("Begun", gtrid, branch=self.bqual, fields=fields, after=branch.state)
        return branch

    def _step(self, branch: Branch, event: Event, now_s: float) -> None:
        before = branch.state
        super()._step(branch, event, now_s)
        if not self._message_under_way:
            fields = {
                "vote": branch.vote.vote if branch.vote is not None else None,
                "fate": branch.fate,
                "one_phase": branch.one_phase,
                "cause": branch.cause.code if branch.cause is not None else None,
                "evidence": branch.evidence,
            }
            self._trace.note(
                event.name,
                branch.gtrid,
                branch=self.bqual,
                fields={name: value for name, value in fields.items() if value not in (None, "", False)},
                before=before,
                after=branch.state,
            )

    def finished(self, decision: Decision, xid: Xid, fate: Fate, outcome: Outcome, evidence: str) -> None:
        """The resource carried out, or had carried out, a decision on a branch, of this instance or of another."""
        fields = {"decision": decision, "fate": fate, "outcome": outcome, "evidence": evidence}
        self._trace.note("Finished", xid.gtrid, branch=xid.bqual, fields=fields)

    # -- for _Told -------------------------------------------------------------------------------------------------

    def message_begins(self, told: _Told) -> None:
        """A message is being taken: what it does to the branch is told with it."""
        told.before = self._of(told)
        self._message_under_way = True

    def message_ends(self, told: _Told) -> None:
        """It was taken; a message that raised left nothing to tell."""
        self._message_under_way = False
        if told.step is None:
            return
        branch = self._of(told)
        self._trace.note(
            f"{told.message.name}_MESSAGE",
            told.gtrid,
            branch=told.bqual,
            fields=told.fields,
            before=told.before,
            after=branch,
            action=told.step.action,
            answer=_answer(told.step.answer),
        )

    def _of(self, told: _Told) -> str | None:
        branch = self.find(told.gtrid) if told.bqual == self.bqual else None
        return branch.state.name if branch is not None else None


@dataclass(slots=True)
class _Told:
    """One message, while it is taken."""

    branches: TracedBranches
    message: Message
    gtrid: str
    bqual: str
    before: str | None = None
    step: Step | None = None
    fields: dict[str, object] | None = None

    def __enter__(self) -> _Told:
        self.branches.message_begins(self)
        return self

    def __exit__(self, *problem: object) -> None:
        self.branches.message_ends(self)


def _answer(answer: Answer | None) -> dict[str, object] | None:
    """An answer without what the operations returned."""
    if answer is None:
        return None
    cause = answer.cause.code if answer.cause is not None else None
    if isinstance(answer, Voted):
        found: dict[str, object] = {"vote": answer.vote, "cause": cause}
    else:
        found = {"outcome": answer.outcome, "evidence": answer.evidence, "cause": cause}
    return {name: value for name, value in found.items() if value}


def trace_of(bqual: str, clock: Clock) -> Trace | None:
    """The trace that the environment asks for; None when it asks for none.

    Args:
        bqual: the participant's instance, which the lines are signed with.
        clock: the one that deadlines are measured by.

    Raises:
        HandfastFault: SETTING_INVALID, its file can't be written.
    """
    return trace_from_environment(Owner("participant", bqual, monotonic_s=clock.monotonic_s))
