"""What a decision log is, without durability, threads or files: the model that the stores are compared with.

It is written from the contract (``coordinator.log.store``) and shares no code with any store. An operation is a value;
``apply`` says what it answers and does. A store that forces them in order, and loses the last ones in a crash, has
always applied some first part of them.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from coordinator.log.records import (
    DecisionRecord,
    EndRecord,
    LoggedTransaction,
    ParticipantRecord,
    ResolutionRecord,
)
from coordinator.log.store import LogRefused, LogStore


@dataclass(frozen=True)
class Forget:
    """An operator's --forget."""

    gtrid: str


@dataclass(frozen=True)
class Raise:
    """The first half of ``forget_before``."""

    horizon_unix_ms: int


@dataclass(frozen=True)
class Drop:
    """The other half; it comes when the first is durable, after all that was submitted meanwhile."""

    horizon_unix_ms: int


Operation = DecisionRecord | EndRecord | ParticipantRecord | ResolutionRecord | Forget | Raise | Drop

REFUSED = "refused"
"""Stands for any LogRefused, whose words are the store's own."""


@dataclass
class Model:
    """What a log holds."""

    decisions: dict[str, DecisionRecord] = field(default_factory=dict)
    ends: dict[str, EndRecord] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    participants: list[ParticipantRecord] = field(default_factory=list)
    resolutions: list[ResolutionRecord] = field(default_factory=list)
    horizon_unix_ms: int = 0

    def after(self, operations: list[Operation]) -> Model:
        """What it would hold after these."""
        changed = deepcopy(self)
        for operation in operations:
            changed.apply(operation)
        return changed

    def apply(self, operation: Operation) -> Any:
        """Do it; return what its callback is told."""
        match operation:
            case DecisionRecord():
                return self.decisions.setdefault(operation.gtrid, operation).decision
            case EndRecord():
                if operation.gtrid in self.decisions:
                    self.ends.setdefault(operation.gtrid, operation)
            case ParticipantRecord():
                self._register(operation)
            case ResolutionRecord():
                self.resolutions.append(operation)
            case Forget(gtrid):
                return self._forget(gtrid)
            case Raise(horizon_unix_ms):
                self.horizon_unix_ms = max(self.horizon_unix_ms, horizon_unix_ms)
            case Drop(horizon_unix_ms):
                return self._drop(horizon_unix_ms)
        return None

    def _register(self, new: ParticipantRecord) -> None:
        gone = [
            one
            for one in self.participants
            if one.resource == new.resource and (one.instance == new.instance or one.address == new.address)
        ]
        self.participants = [one for one in self.participants if one not in gone] + [new]

    def _forget(self, gtrid: str) -> str | None:
        if gtrid not in self.ends or gtrid in self.forgotten:
            return REFUSED
        self.forgotten.add(gtrid)
        return None

    def _drop(self, horizon_unix_ms: int) -> int:
        old = [gtrid for gtrid, end in self.ends.items() if end.ended_unix_ms < horizon_unix_ms]
        for gtrid in old:
            del self.decisions[gtrid], self.ends[gtrid]
            self.forgotten.discard(gtrid)
        return len(old)

    # -- reads -----------------------------------------------------------------------------------------------------

    def view(self, gtrids: list[str]) -> View:
        """What can be read from it."""
        shown = {gtrid: record for gtrid, record in self.decisions.items() if gtrid not in self.forgotten}
        known = {gtrid: LoggedTransaction(record, self.ends.get(gtrid)) for gtrid, record in shown.items()}
        return View(
            transactions=[known.get(gtrid) for gtrid in gtrids],
            recent=[*reversed(known.values())],
            unended=[one for one in known.values() if one.end is None],
            forgotten=[gtrid for gtrid in gtrids if gtrid in self.forgotten],
            participants=sorted(self.participants, key=lambda one: (one.resource, -one.registered_unix_ms)),
            resolutions=[[one for one in self.resolutions if one.gtrid == gtrid] for gtrid in gtrids],
            horizon_unix_ms=self.horizon_unix_ms,
        )


@dataclass
class View:
    """Everything that a log can be asked, about a few transactions."""

    transactions: list[LoggedTransaction | None]
    recent: list[LoggedTransaction]
    unended: list[LoggedTransaction]
    forgotten: list[str]
    participants: list[ParticipantRecord]
    resolutions: list[list[ResolutionRecord]]
    horizon_unix_ms: int


def view_of(store: LogStore, gtrids: list[str]) -> View:
    """Ask a store all of it."""
    return View(
        transactions=[store.lookup(gtrid) for gtrid in gtrids],
        recent=[*store.recent(0)],
        unended=[*store.unended()],
        forgotten=[gtrid for gtrid in gtrids if store.was_forgotten(gtrid)],
        participants=[*store.participants()],
        resolutions=[[*store.resolutions(gtrid)] for gtrid in gtrids],
        horizon_unix_ms=store.horizon_unix_ms,
    )


def submit(store: LogStore, operation: Operation, told: Callable[[Any], None]) -> None:
    """Offer an operation to a store; ``Raise`` stands for the whole ``forget_before``."""

    def tell(answer: Any) -> None:
        told(REFUSED if isinstance(answer, LogRefused) else answer)

    match operation:
        case DecisionRecord():
            store.decide(operation, tell)
        case EndRecord():
            store.end(operation)
        case ParticipantRecord():
            store.register(operation, tell)
        case ResolutionRecord():
            store.record_resolution(operation, tell)
        case Forget(gtrid):
            store.forget(gtrid, tell)
        case Raise(horizon_unix_ms):
            store.forget_before(horizon_unix_ms, tell)
        case Drop():
            raise TypeError("a part of forget_before")


def answers_of(model: Model, operations: list[Operation]) -> list[Any]:
    """Apply operations as a store does that refuses none; return what their callbacks are told, in that order.

    Ends are given no callback. What ``forget_before`` drops, it drops after all that was submitted with it.
    """
    answers = [(one, model.apply(one)) for one in operations]
    heard: list[Any] = [answer for one, answer in answers if not isinstance(one, EndRecord | Raise)]
    return heard + [model.apply(Drop(one.horizon_unix_ms)) for one in operations if isinstance(one, Raise)]


def with_drops(operations: list[Operation]) -> list[Operation]:
    """The operations as they come to the disk."""
    return [*operations, *(Drop(one.horizon_unix_ms) for one in operations if isinstance(one, Raise))]
