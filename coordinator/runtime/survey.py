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
        prepared: our branches that are prepared, by gtrid and bqual.
        foreign: with ``foreign``, those that other coordinators made, or this one under a log that was lost.
        unreachable: one finding for each resource that could not be asked.
    """

    prepared: dict[BranchKey, p.PreparedBranch] = field(default_factory=dict)
    foreign: dict[BranchKey, p.PreparedBranch] = field(default_factory=dict)
    unreachable: list[p.Finding] = field(default_factory=list)


async def survey(requests: Requests, links: Links, *, detail: bool = False, foreign: bool = False) -> Survey:
    """Ask every known resource for its prepared branches.

    Args:
        requests: knows who we are and whom to ask.
        links: the way to participants.
        detail: also ask what each branch blocks.
        foreign: also ask for the branches that other coordinators made.
    """
    surveyed = await _survey_ours(requests, links, detail)
    if foreign:
        await _add_foreign(surveyed, requests, links, detail)
    return surveyed


async def _survey_ours(requests: Requests, links: Links, detail: bool) -> Survey:
    surveyed = Survey()
    resources = requests.directory.resources()
    asker = requests.gtrids.coordinator_id
    answers = await asyncio.gather(*(_ask(links, resource, asker, detail) for resource in resources))
    for resource, answer in zip(resources, answers, strict=True):
        if isinstance(answer, p.Finding):
            surveyed.unreachable.append(answer)
        else:
            listed = (branch for branch in answer.branches if _is_of(resource, branch))
            ours = (branch for branch in listed if requests.gtrids.is_ours(branch.gtrid))
            surveyed.prepared.update({(branch.gtrid, branch.bqual): branch for branch in ours})
    return surveyed


async def _add_foreign(surveyed: Survey, requests: Requests, links: Links, detail: bool) -> None:
    """Whoever could not be asked for our branches is not asked again; who fails only now has told the main thing."""
    silent = {finding.subject for finding in surveyed.unreachable}
    resources = [resource for resource in requests.directory.resources() if resource not in silent]
    answers = await asyncio.gather(*(_ask(links, resource, "", detail) for resource in resources))
    for resource, answer in zip(resources, answers, strict=True):
        if isinstance(answer, p.Finding):
            surveyed.unreachable.append(answer)
            continue
        for branch in answer.branches:
            if _is_of(resource, branch) and not requests.gtrids.is_ours(branch.gtrid):
                surveyed.foreign[branch.gtrid, branch.bqual] = branch


async def _ask(links: Links, resource: str, coordinator_id: str, detail: bool) -> p.RecoverResponse | p.Finding:
    request = p.RecoverRequest(resource=resource, coordinator_id=coordinator_id, detail=detail)
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


def _is_of(resource: str, branch: p.PreparedBranch) -> bool:
    """Whether the names are a coordinator's, this or another, and the branch is one of this resource."""
    try:
        return is_gtrid(branch.gtrid) and split_bqual(branch.bqual)[0] == resource
    except MalformedName:
        return False
