"""Participants' databases in a test's hand, as the sweep and an operator reach them."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from google.protobuf.message import Message

from coordinator.log.records import ParticipantRecord
from coordinator.runtime.links import Links
from handfast.frames import UNIMPLEMENTED, UNREACHABLE, CallFailed
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t


class Databases:
    """What is prepared where, and what can happen between two looks at it.

    Args:
        prepared: (gtrid, bqual) by resource.
    """

    def __init__(self, **prepared: set[tuple[str, str]]) -> None:
        self.prepared = prepared
        self.away: set[str] = set()
        self.without_recover: set[str] = set()
        self.says: dict[str, t.Outcome.ValueType] = {}
        self.told: list[tuple[str, str, str]] = []
        self.forgotten: list[tuple[str, str]] = []
        self.before_listing: list[Callable[[], None]] = []
        self.after_listing: list[Callable[[], None]] = []
        self.connects = 0
        self.listings: list[str] = []

    def as_links(self) -> Links:
        """Stand in for the way to participants."""
        return cast(Links, self)  # it has the methods that recovery and resolution use

    def connect(self) -> None:
        """See Links."""
        self.connects += 1

    def connect_now(self, participant: ParticipantRecord) -> None:
        """See Links."""

    async def ask_resource(self, resource: str, request: Message, timeout_s: float) -> Message:
        """See Links."""
        if resource in self.away:
            raise CallFailed(UNREACHABLE, f"{resource} is away.", grpc_status=14, maybe_executed=False)
        if isinstance(request, p.RecoverRequest):
            return self._list(resource)
        if isinstance(request, p.ForgetRequest):
            self.forgotten.append((request.gtrid, request.bqual))
            return p.ForgetResponse()
        assert isinstance(request, p.ParticipantCommitRequest | p.ParticipantRollbackRequest)
        commits = isinstance(request, p.ParticipantCommitRequest)
        self.told.append(("commit" if commits else "rollback", request.gtrid, request.bqual))
        self.prepared[resource].discard((request.gtrid, request.bqual))
        said = self.says.get(request.bqual, t.OUTCOME_COMMITTED if commits else t.OUTCOME_ABORTED)
        if commits:
            return p.ParticipantCommitResponse(outcome=said, evidence="as found")
        return p.ParticipantRollbackResponse(outcome=said, evidence="as found")

    def _list(self, resource: str) -> p.RecoverResponse:
        if resource in self.without_recover:
            raise CallFailed(UNIMPLEMENTED, "no such method", grpc_status=12, maybe_executed=False)
        self.listings.append(resource)
        if self.before_listing:
            self.before_listing.pop(0)()
        listed = [p.PreparedBranch(gtrid=gtrid, bqual=bqual) for gtrid, bqual in sorted(self.prepared[resource])]
        if self.after_listing:
            # Between the moment the database looked and the moment the coordinator hears of it.
            self.after_listing.pop(0)()
        return p.RecoverResponse(branches=listed)
