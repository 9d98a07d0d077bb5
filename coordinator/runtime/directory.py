"""Who is where: the participants that registered, and those that the configuration names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from coordinator.log.records import ParticipantRecord
from handfast.catalog import HandfastFault
from handfast.xid import make_bqual

STATIC_INSTANCE = "static"
"""The instance name of a participant that the configuration names instead of registering."""


IsUp = Callable[[ParticipantRecord], bool]
"""Tells whether a process can be reached now."""


def anybody(participant: ParticipantRecord) -> bool:
    """Take every process for one that is up."""
    return True


class Directory:
    """The participants, by resource and instance.

    ``changes`` grows with each change, so that others may remember what they found.

    Args:
        participants: those known at start: from the log, and from the configuration.
    """

    def __init__(self, participants: Iterable[ParticipantRecord] = ()) -> None:
        self._by_resource: dict[str, dict[str, ParticipantRecord]] = {}
        self._turns: dict[str, int] = {}
        self._only_branches: dict[str, str] = {}  # the branch of each resource that one process serves, as it is met
        self.changes = 0
        for participant in participants:
            self.add(participant)

    def __iter__(self) -> Iterator[ParticipantRecord]:
        for instances in list(self._by_resource.values()):
            yield from list(instances.values())

    def __len__(self) -> int:
        return sum(map(len, self._by_resource.values()))

    def resources(self) -> list[str]:
        """The resources that somebody serves."""
        return sorted(self._by_resource)

    def add(self, participant: ParticipantRecord) -> list[ParticipantRecord]:
        """Add a participant; return those that it replaces (the same resource at the same address: a dead process)."""
        self.changes += 1
        self._only_branches.pop(participant.resource, None)
        instances = self._by_resource.setdefault(participant.resource, {})
        gone = [
            known
            for known in instances.values()
            if known.address == participant.address and known.instance != participant.instance
        ]
        for known in gone:
            del instances[known.instance]
        instances[participant.instance] = participant
        return gone

    def knows(self, resource: str, instance: str) -> bool:
        """Whether this very process registered."""
        return instance in self._by_resource.get(resource, {})

    def find(self, resource: str, instance: str) -> ParticipantRecord | None:
        """Return this very process, or None."""
        return self._by_resource.get(resource, {}).get(instance)

    def instances(self, resource: str, first: str = "") -> list[ParticipantRecord]:
        """Return the resource's processes, the newest first, but the one named ``first`` before all others."""
        instances = sorted(
            self._by_resource.get(resource, {}).values(),
            key=lambda known: (known.instance != first, -known.registered_unix_ms),
        )
        return instances

    def new_branch(self, resource: str, is_up: IsUp = anybody) -> str:
        """Name a branch for new work, which goes to the process that ``pick`` chooses.

        Raises:
            HandfastFault: RESOURCE_UNKNOWN.
        """
        bqual = self._only_branches.get(resource)
        if bqual is None:
            bqual = make_bqual(resource, self.pick(resource, is_up).instance)
            if len(self._by_resource[resource]) == 1:
                self._only_branches[resource] = bqual
        return bqual

    def pick(self, resource: str, is_up: IsUp = anybody) -> ParticipantRecord:
        """Choose a process for new work, in turn among those that are up; among all when none is.

        Args:
            resource: whose.
            is_up: which are up.

        Raises:
            HandfastFault: RESOURCE_UNKNOWN.
        """
        instances = self._by_resource.get(resource)
        if not instances:
            raise HandfastFault("RESOURCE_UNKNOWN", resource=resource)
        known = list(instances.values())
        if len(known) == 1:
            return known[0]
        # One that is gone for good is not told apart from one that will be back, and stays in the directory.
        known = [one for one in known if is_up(one)] or known
        # Each resource has turns of its own: with one count for all, requests that name two resources would always meet
        # the same process of each.
        turn = self._turns[resource] = self._turns.get(resource, -1) + 1
        return known[turn % len(known)]
