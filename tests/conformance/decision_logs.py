"""The stores under test, each with the same handles on its disk, and records to put into them."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from coordinator.log.memory import MemoryLog
from coordinator.log.records import (
    DecisionRecord,
    EndRecord,
    Identity,
    LoggedBranch,
    ParticipantRecord,
    ResolutionRecord,
)
from coordinator.log.sqlite import SqliteLog
from coordinator.log.store import LogBroken, LogRefused, LogStore
from coordinator.protocol.states import Decision, Outcome

COORDINATOR_ID = "k3v9q2xw"
DAY_MS = 86_400_000
NEVER_S = 3600.0
ANSWER_WITHIN_S = 10.0


class Rig(ABC):
    """A store with its hands on the disk: forces can be held back, watched, and made to fail."""

    store: LogStore

    def __init__(self) -> None:
        self.broken: list[LogBroken] = []
        self.forces: list[int] = []
        """How many records each force carried, in order."""
        self.failures: list[Exception] = []
        """What the next forces fail with, in order."""
        self.watch: Callable[[], None] = lambda: None
        """Called before each force."""
        self.ids_made = 0
        self.now_unix_ms = 1_700_000_000_000

    def make_coordinator_id(self) -> str:
        self.ids_made += 1
        return COORDINATOR_ID

    @abstractmethod
    def hold(self) -> None:
        """Let no force happen until ``release``."""

    @abstractmethod
    def holds_a_force(self) -> bool:
        """Whether a force waits for ``release``, so that what is submitted now gathers for the next; or need not."""

    @abstractmethod
    def release(self) -> None:
        """Let forces happen."""

    @abstractmethod
    def use_lazy_flush_s(self, lazy_flush_s: float) -> None:
        """Replace the store by one whose lone end records wait for so long; before it is opened."""

    async def reopen(self) -> Identity:
        """End this life of the log and begin the next."""
        await self.store.close()
        return await self.store.open()

    def before_force(self, records: int) -> None:
        self.forces.append(records)
        self.watch()
        if self.failures:
            raise self.failures.pop(0)


class MemoryRig(Rig):
    def __init__(self, _folder: Path) -> None:
        super().__init__()
        self.use_lazy_flush_s(NEVER_S)

    def use_lazy_flush_s(self, lazy_flush_s: float) -> None:
        self._log = MemoryLog(
            make_coordinator_id=self.make_coordinator_id,
            on_broken=self.broken.append,
            unix_ms=lambda: self.now_unix_ms,
            before_force=self.before_force,
            lazy_flush_s=lazy_flush_s,
        )
        self.store = self._log

    def hold(self) -> None:
        self._log.hold()

    def crash(self, forced: int) -> None:
        """Lose the process when so many of the waiting submissions had become durable."""
        self._log.crash(forced)

    def holds_a_force(self) -> bool:
        return True  # it has no thread: all that gathers goes at once

    def release(self) -> None:
        self._log.release()


class SqliteRig(Rig):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "handfast.db"
        self._may_force = threading.Event()
        self._may_force.set()
        self._waits = threading.Event()
        self.use_lazy_flush_s(NEVER_S)

    def use_lazy_flush_s(self, lazy_flush_s: float) -> None:
        self.store = SqliteLog(
            self.path,
            make_coordinator_id=self.make_coordinator_id,
            on_broken=self.broken.append,
            unix_ms=lambda: self.now_unix_ms,
            before_force=self.before_force,
            lazy_flush_s=lazy_flush_s,
        )

    def hold(self) -> None:
        self._may_force.clear()

    def holds_a_force(self) -> bool:
        return self._waits.is_set()

    def release(self) -> None:
        self._may_force.set()

    def before_force(self, records: int) -> None:
        self._waits.set()
        self._may_force.wait(ANSWER_WITHIN_S)
        self._waits.clear()
        super().before_force(records)


RIGS: dict[str, Callable[[Path], Rig]] = {"memory": MemoryRig, "sqlite": SqliteRig}


class Answers:
    """Everything that callbacks said, in the order in which they said it."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, object]] = []

    def to(self, label: object) -> Callable[[Any], None]:
        """A callback that notes its answer under this label."""
        return lambda answer: self.heard.append((label, answer))

    def labels(self) -> list[object]:
        return [label for label, _ in self.heard]

    def values(self) -> list[object]:
        return [value for _, value in self.heard]


async def answer_of(call: Callable[[Callable[[Any], None]], None]) -> Any:
    """Make a call that takes a callback last, and wait for what the callback is told."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    call(answer.set_result)
    return await asyncio.wait_for(answer, ANSWER_WITHIN_S)


async def decide(store: LogStore, record: DecisionRecord) -> Any:
    return await answer_of(partial(store.decide, record))


async def end(store: LogStore, record: EndRecord) -> None:
    """Write an end and see to it that it is forced now."""
    store.end(record)
    await flush(store)


async def flush(store: LogStore) -> None:
    """Force what was submitted."""
    assert await answer_of(partial(store.record_resolution, resolution("flush"))) is None


async def register(store: LogStore, record: ParticipantRecord) -> None:
    assert await answer_of(partial(store.register, record)) is None


def gtrid(number: int) -> str:
    return f"{COORDINATOR_ID}-1-0m9xk2f1c-{number}"


def commit(number: int, *, decided_unix_ms: int | None = None) -> DecisionRecord:
    branches = (LoggedBranch("accounts.7hx2k9qd", f"{number}"), LoggedBranch("ledger.8b", f"{number + 1}"))
    decided = number if decided_unix_ms is None else decided_unix_ms
    return DecisionRecord(gtrid(number), Decision.COMMIT, branches, decided, begun_unix_ms=decided, client="till 3")


def abort(number: int) -> DecisionRecord:
    return replace(commit(number), decision=Decision.ABORT)


def ended(number: int, *, at_unix_ms: int | None = None, outcome: Outcome = Outcome.COMMITTED) -> EndRecord:
    return EndRecord(gtrid(number), outcome, number if at_unix_ms is None else at_unix_ms)


def participant(resource: str, instance: str, address: str, *, registered_unix_ms: int = 1) -> ParticipantRecord:
    return ParticipantRecord(resource, instance, address, "postgres", ("withdraw", "credit"), registered_unix_ms)


def resolution(about: str, *, reason: str = "a drill") -> ResolutionRecord:
    return ResolutionRecord(about, "retry-now", False, "ada", reason, "committing", "committing", 7)


REFUSED = LogRefused("the disk is full")
