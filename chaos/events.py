"""What happened in a run and when, on one clock: the material of the live progress, the picture and the log.

Seconds count from the moment at which the stack is ready. They come from the monotonic clock; a database's wall-clock
times are moved onto it by ``of_unix``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

CLIENT, COORDINATOR = "client", "coordinator"


@dataclass(frozen=True, slots=True)
class Event:
    """A moment.

    Args:
        at_s: when, in seconds since the run began.
        lane: the process concerned, as ``coordinator`` or ``postgres-ledger``; empty for the lab itself.
        what: what happened.
        why: why it matters; empty when it is plain.
    """

    at_s: float
    lane: str
    what: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class FaultSpan:
    """A fault, from when it acted to when it was healed.

    Args:
        label: two or three words for the picture.
        words: what it does, as a sentence.
        lanes: the processes that it concerns.
        start_s: when it began.
        end_s: when it was healed; None while it lasts.
    """

    label: str
    words: str
    lanes: tuple[str, ...]
    start_s: float
    end_s: float | None = None

    @property
    def seconds(self) -> float:
        """How long it lasted; 0 while it lasts."""
        return 0.0 if self.end_s is None else self.end_s - self.start_s


Listener = Callable[[Event], None]


class EventLog:
    """The record of one run. Any thread may write.

    Args:
        listener: is told of each event as it happens.
    """

    def __init__(self, listener: Listener = lambda event: None) -> None:
        self.begin()
        self._listener = listener
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._faults: list[FaultSpan] = []

    def begin(self) -> None:
        """Let the run begin now, at 0 s."""
        self._started_s = time.monotonic()
        self._started_unix_s = time.time()

    def now_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started_s

    def of_unix(self, unix_s: float) -> float:
        """Seconds since the run began, of a wall-clock time in seconds since 1970."""
        return unix_s - self._started_unix_s

    def note(self, lane: str, what: str, why: str = "") -> Event:
        """Record that something happened now."""
        event = Event(self.now_s(), lane, what, why)
        with self._lock:
            self._events.append(event)
        self._listener(event)
        return event

    def begin_fault(self, label: str, words: str, lanes: tuple[str, ...], start_s: float) -> int:
        """Record that a fault acts. Returns its number, for ``end_fault``."""
        with self._lock:
            self._faults.append(FaultSpan(label, words, lanes, start_s))
            return len(self._faults) - 1

    def end_fault(self, number: int) -> FaultSpan:
        """Record that a fault was healed now."""
        with self._lock:
            self._faults[number] = replace(self._faults[number], end_s=self.now_s())
            return self._faults[number]

    @property
    def events(self) -> Sequence[Event]:
        """The moments, oldest first."""
        with self._lock:
            return tuple(sorted(self._events, key=lambda event: event.at_s))

    @property
    def faults(self) -> Sequence[FaultSpan]:
        """The faults, oldest first."""
        with self._lock:
            return tuple(self._faults)
