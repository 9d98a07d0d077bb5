"""The client's trace: what it asked of a coordinator, and what it was told (see handfast.trace, docs/trace.md).

What a client was told is what everything else is for, so the outside checker compares it with what became of the
transaction elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from google.protobuf.message import Message

from handfast.errors import HandfastError
from handfast.frames import CallFailed
from handfast.outcomes import Verdict, report_of
from handfast.settling import Settler
from handfast.trace import Trace
from handfast.v1 import coordinator_pb2 as wire


class TracedSettler(Settler):
    """A Settler that tells of itself.

    Args:
        trace: where to.
        parts: as for Settler.
    """

    def __init__(self, trace: Trace, *parts: Any) -> None:
        super().__init__(*parts)
        self._trace = trace

    async def commit(
        self, gtrid: str, wait: wire.Wait.ValueType, deadline_s: float, *, branches: int = 0, repeat: bool = False
    ) -> Verdict:
        """See Settler."""
        self._trace.note(
            "CommitAsked", gtrid, fields={"deadline_s": deadline_s, "branches": branches, "repeat": repeat}
        )
        return await self._told(gtrid, super().commit(gtrid, wait, deadline_s, branches=branches, repeat=repeat))

    async def execute(self, request: wire.ExecuteRequest, deadline_s: float) -> Verdict:
        """See Settler."""
        branches = len({operation.resource for operation in request.operations})
        self._trace.note("ExecuteAsked", request.gtrid, fields={"deadline_s": deadline_s, "branches": branches})
        return await self._told(request.gtrid, super().execute(request, deadline_s))

    async def rollback(
        self, gtrid: str, reason: str, timeout_s: float, *, branches: int = 0, commit_maybe_asked: bool = True
    ) -> Verdict:
        """See Settler."""
        self._trace.note("RollbackAsked", gtrid, fields={"branches": branches, "reason": reason})
        asked = super().rollback(gtrid, reason, timeout_s, branches=branches, commit_maybe_asked=commit_maybe_asked)
        return await self._told(gtrid, asked)

    async def ask_patiently(self, request: Message, give_up_s: float) -> Message:
        """See Settler; of these, an Inquire is what a transaction's outcome is asked by."""
        answer = await super().ask_patiently(request, give_up_s)
        if isinstance(answer, wire.InquireResponse):
            report = report_of(answer)
            fields = {"standing": report.standing, "outcome": report.outcome}
            self._trace.note("Told", report.gtrid, fields=fields)
        return answer

    async def _told(self, gtrid: str, asked: Awaitable[Verdict]) -> Verdict:
        try:
            verdict = await asked
        except (HandfastError, CallFailed) as problem:
            self._trace.note("Told", gtrid, fields={"error": type(problem).__name__, "reason": str(problem)})
            raise
        fields = {"outcome": verdict.outcome, "cause": verdict.cause, "pending": [one.bqual for one in verdict.pending]}
        self._trace.note("Told", gtrid, fields=fields)
        return verdict
