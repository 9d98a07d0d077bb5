"""The branches that have ended, as long as their answers may be asked for again.

They are up to a hundred thousand, and hardly any is asked for again. As each was at work, it is two objects or more in
somebody else's process, and at every full collection the garbage collector goes through all of them, while the service
does nothing else. So those whose end is known are *folded* to bytes, at which it never looks.

Many are folded in one go: by the time the next one ends, the processor has gone through all of a branch's work, and
each by itself would take three times as long.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from participant.protocol.answers import Branch, Cause, Voted
from participant.protocol.states import Fate, State, Vote

FOLDED_TOGETHER = 32
"""How many are folded in one go."""

_HEAD = Struct("<qdd")
"""born_ms, deadline_s and ended_s, by which it is forgotten."""


class Times(NamedTuple):
    """When one began and ended.

    Args:
        born_ms: the time in its gtrid, in milliseconds since 1970 by the coordinator's clock.
        deadline_s: until when it could prepare, by the monotonic clock.
        ended_s: when it ended, by the monotonic clock.
    """

    born_ms: int
    deadline_s: float
    ended_s: float


class Memory:
    """Branches by gtrid, in the order in which they ended."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Branch | bytes] = OrderedDict()
        self._whole: list[str] = []  # which of them have not been folded, but will be

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Branch]:
        return iter([_shown(gtrid, one) for gtrid, one in self._kept.items()])

    def find(self, gtrid: str) -> Branch | None:
        """The branch of this transaction; one that was folded is made anew each time."""
        one = self._kept.get(gtrid)
        return None if one is None else _shown(gtrid, one)

    def add(self, branch: Branch) -> None:
        """Remember one that has just ended."""
        self._kept[branch.gtrid] = branch
        self._whole.append(branch.gtrid)
        if len(self._whole) >= FOLDED_TOGETHER:
            self._fold()

    def drop(self, gtrid: str) -> Times | None:
        """Forget one; return its times, or None when there is none."""
        one = self._kept.pop(gtrid, None)
        return None if one is None else _times(one)

    def oldest(self) -> tuple[str, Times] | None:
        """The one that ended first."""
        for gtrid, one in self._kept.items():
            return gtrid, _times(one)
        return None

    def _fold(self) -> None:
        for gtrid in self._whole:
            one = self._kept.get(gtrid)
            if isinstance(one, Branch):
                self._kept[gtrid] = folded(one) or one
        self._whole.clear()


def _shown(gtrid: str, one: Branch | bytes) -> Branch:
    return unfolded(gtrid, one) if isinstance(one, bytes) else one


def _times(one: Branch | bytes) -> Times:
    if isinstance(one, bytes):
        return Times(*_HEAD.unpack_from(one))
    return Times(one.born_ms, one.deadline_s, _ended_s(one))


def _ended_s(branch: Branch) -> float:
    if branch.ended_s is None:
        raise ValueError(f"the branch of {branch.gtrid} has not ended")
    return branch.ended_s


def folded(branch: Branch) -> bytes | None:
    """Fold a branch of which nothing changes any more; None when it must be kept as it is.

    That is so where the resource is still to be asked how it ended, and where a text in it is of a class of its own
    (what an exception of the service says may be).
    """
    vote, fate = branch.vote, branch.fate
    if fate is None:
        return None
    whole = (
        branch.state._value_,
        (branch.one_phase, branch.read_only, branch.rollback_wanted, branch.expired, branch.tombstone),
        branch.proof,
        None if vote is None else (vote.vote._value_, vote.proof, _plain(vote.cause), vote.results),
        _plain(branch.cause),
        fate._value_,
        branch.evidence,
        branch.results,
    )
    try:
        # marshal, for nobody else reads it: text, flags and tuples as they are, in a microsecond.
        return _HEAD.pack(branch.born_ms, branch.deadline_s, _ended_s(branch)) + marshal.dumps(whole)
    except ValueError:  # marshal takes no class but the plain ones
        return None


def unfolded(gtrid: str, whole: bytes) -> Branch:
    """Make a branch as it was when it was folded.

    Args:
        gtrid: its transaction.
        whole: the rest.
    """
    born_ms, deadline_s, ended_s = _times(whole)
    state, flags, proof, voted, cause, fate, evidence, results = marshal.loads(whole[_HEAD.size :])
    branch = Branch(gtrid, born_ms, deadline_s, State(state), proof=proof, evidence=evidence, results=results)
    branch.one_phase, branch.read_only, branch.rollback_wanted, branch.expired, branch.tombstone = flags
    if voted is not None:
        vote, vote_proof, vote_cause, vote_results = voted
        branch.vote = Voted(Vote(vote), vote_proof, _cause(vote_cause), vote_results)
    branch.cause, branch.fate, branch.ended_s = _cause(cause), Fate(fate), ended_s
    return branch


def _plain(cause: Cause | None) -> tuple[str, str] | None:
    return None if cause is None else (cause.code, cause.reason)


def _cause(plain: tuple[str, str] | None) -> Cause | None:
    return None if plain is None else Cause(*plain)
