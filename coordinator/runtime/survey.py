"""Asking every participant which branches are prepared in its resource now.

What a participant lists is believed only as far as it is ours: a gtrid of this coordinator, and a branch of the
resource that was asked. Whoever can't be asked becomes a finding, never a gap that nobody sees.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from coordinator.runtime.links import Links
from coordinator.runtime.requests import Requests
from handfast.frames import UNIMPLEMENTED, CallFailed
from handfast.v1 import participant_pb2 as p
from handfast.xid import MalformedName, is_gtrid, split_bqual

ASK_TIMEOUT_S = 10.0

BranchKey = tuple[str, str]
"""gtrid and bqual."""


@dataclass(slots=True)
class Survey:
    """What the participants listed.

    Args:
        prepared: the branches that are prepared, by gtrid and bqual.
        unreachable: one finding for each resource that could not be asked.
    """

    prepared: dict[BranchKey, p.PreparedBranch] = field(default_factory=dict)
    unreachable: list[p.Finding] = field(default_factory=list)


async def survey(requests: Requests, links: Links, *, detail: bool = False) -> Survey:
    """Ask every known resource for its prepared branches.

    Args:
        requests: knows who we are and whom to ask.
        links: the way to participants.
        detail: also ask what each branch blocks.
    """
    surveyed = Survey()
    resources = requests.directory.resources()
    answers = await asyncio.gather(*(_ask(requests, links, resource, detail) for resource in resources))
    for resource, answer in zip(resources, answers, strict=True):
        if isinstance(answer, p.Finding):
            surveyed.unreachable.append(answer)
        else:
            listed = (branch for branch in answer.branches if _is_ours(requests, resource, branch))
            surveyed.prepared.update({(branch.gtrid, branch.bqual): branch for branch in listed})
    return surveyed


async def _ask(requests: Requests, links: Links, resource: str, detail: bool) -> p.RecoverResponse | p.Finding:
    request = p.RecoverRequest(resource=resource, coordinator_id=requests.gtrids.coordinator_id, detail=detail)
    try:
        response = await links.ask_resource(resource, request, ASK_TIMEOUT_S)
    except CallFailed as failure:
        return not_asked(resource, failure, "Recover")
    if not isinstance(response, p.RecoverResponse):
        raise TypeError(f"{resource} answered Recover with {type(response).__name__}")
    return response


def not_asked(resource: str, failure: CallFailed, method: str) -> p.Finding:
    """Say that a resource could not be asked, and why.

    Args:
        resource: which.
        failure: what came instead of an answer.
        method: what it was asked by.
    """
    if failure.code == UNIMPLEMENTED:
        return p.Finding(
            check="asked",
            severity=p.SEVERITY_WARNING,
            found=f"its participant does not implement {method}",
            mend=f"Implement {method}, or look into the resource by hand.",
            subject=resource,
        )
    return p.Finding(
        check="asked", severity=p.SEVERITY_ERROR, found=failure.message, mend=failure.mend, subject=resource
    )


def _is_ours(requests: Requests, resource: str, branch: p.PreparedBranch) -> bool:
    try:
        return (
            is_gtrid(branch.gtrid)
            and requests.gtrids.is_ours(branch.gtrid)
            and split_bqual(branch.bqual)[0] == resource
        )
    except MalformedName:
        return False
