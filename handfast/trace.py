"""Traces: what a process did, one JSON object a line, for somebody outside to follow and to judge.

``HANDFAST_TRACE=file`` lets a process write each protocol event that it takes: when, who, which transaction and branch,
the event, the states before and after, and what came out of it. docs/trace.md tells every field, and
``python -m chaos.trace_check`` replays such files. Nothing is written, and nothing is paid, without the variable.

A line is one ``write`` to a file that is open for appending: processes may share a file, and a line that was written
survives the death of its process, as anything does that the operating system has. What does not survive is a loss of
power: a trace is no log, and nothing waits for the disk. The file is opened without blocking, so a pipe that nobody
reads loses lines rather than stop the process.

What can't be written is lost, said once in the log, and counted in the first line that can be written again
(``LinesLost``); the service goes on. Nothing rotates or bounds the file: it grows by 6 to 8 kB a transaction.

Text goes through ``masking``; payloads and DSNs are in no event.
"""

from __future__ import annotations

import json
import logging
import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from math import isfinite
from typing import Protocol

from handfast import clock
from handfast.catalog import HandfastFault
from handfast.masking import masked

ENVIRONMENT_VARIABLE = "HANDFAST_TRACE"
VERSION = 1
TEXT_CHARACTERS_MAX = 2_000
"""What a peer says may be long."""

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Where lines go."""

    def write(self, line: str) -> None:
        """Take a line, without its end; never raises for trouble outside this process."""


class TraceFile:
    """A file that lines are appended to.

    Args:
        path: which; ``%p`` in it is replaced by the process's id.
        setting: what named the file, for messages.

    Raises:
        HandfastFault: SETTING_INVALID, it can't be written.
    """

    def __init__(self, path: str, setting: str = ENVIRONMENT_VARIABLE) -> None:
        self.path = path.replace("%p", str(os.getpid()))
        self._lost = 0
        self._said = False
        self._torn = False
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            self._descriptor = os.open(self.path, flags, 0o600)
        except OSError as problem:
            said = f"{self.path} can't be written: {problem.strerror}"
            raise HandfastFault("SETTING_INVALID", setting=setting, problem=said) from problem
        weakref.finalize(self, os.close, self._descriptor)

    def write(self, line: str) -> None:
        """See Sink."""
        if self._lost and self._append(json.dumps({"v": VERSION, "event": "LinesLost", "lost": self._lost})):
            self._lost = 0
        if self._lost or not self._append(line):
            self._lost += 1

    def _append(self, line: str) -> bool:
        """Write a line whole; a piece of one, which a full disk leaves, is ended so that the next can be read."""
        whole = f"\n{line}\n" if self._torn else f"{line}\n"
        data = whole.encode("ascii")
        try:
            written = os.write(self._descriptor, data)
        except OSError as problem:
            self._say(problem.strerror or type(problem).__name__)
            return False
        self._torn = written < len(data)
        if self._torn:
            self._say("there was room for a part of a line only")
        return not self._torn

    def _say(self, problem: str) -> None:
        if not self._said:
            self._said = True
            logger.error("the trace %s loses lines, and the service goes on: %s", self.path, problem)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who writes.

    Args:
        role: ``coordinator``, ``participant`` or ``client``.
        name: which of them.
        unix_us: microseconds since 1970.
        monotonic_s: seconds of the clock that the process measures deadlines by.
    """

    role: str
    name: str
    unix_us: Callable[[], int] = clock.unix_us
    monotonic_s: Callable[[], float] = clock.monotonic_s


class Trace:
    """Writes the lines of one owner.

    Args:
        sink: where they go.
        owner: who writes.
    """

    def __init__(self, sink: Sink, owner: Owner) -> None:
        self._sink = sink
        self._owner = owner
        self._pid = os.getpid()

    def note(
        self,
        event: str,
        gtrid: str = "",
        *,
        branch: str = "",
        coordinator: tuple[str, int] | None = None,
        **more: object,
    ) -> None:
        """Write one line; never raises.

        Args:
            event: what happened, as the protocol names it.
            gtrid: the transaction; empty when none is concerned.
            branch: the branch; empty when none is.
            coordinator: its id and epoch; None takes those that the gtrid names.
            more: the line's other keys; those that are None are left out.
        """
        owner = self._owner
        coordinator_id, epoch = coordinator or named_coordinator(gtrid)
        line: dict[str, object] = {
            "v": VERSION,
            "unix_us": owner.unix_us(),
            "monotonic_us": int(owner.monotonic_s() * 1_000_000),
            "role": owner.role,
            "name": owner.name,
            "pid": self._pid,
            "coordinator": coordinator_id,
            "epoch": epoch,
            "gtrid": gtrid,
            "branch": branch,
            "event": event,
        }
        try:
            line.update((key, told(value)) for key, value in more.items() if value is not None)
            self._sink.write(json.dumps(line, separators=(",", ":")))
        except Exception:
            # Whoever looks on must not hold up what is looked at.
            logger.exception("event %s of transaction %s could not be traced", event, gtrid or "-")


def named_coordinator(gtrid: str) -> tuple[str, int]:
    """The coordinator and the epoch that a gtrid names; nothing for what is none."""
    parts = gtrid.split("-")
    try:
        return parts[0], int(parts[1], 36)
    except (IndexError, ValueError):
        return "", 0


def told(value: object) -> object:
    """A value as JSON has it: enum members by name, dataclasses by their fields, text without secrets."""
    if isinstance(value, str):
        return masked(value)[:TEXT_CHARACTERS_MAX]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, float):
        return round(value, 6) if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): told(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [told(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: told(getattr(value, field.name)) for field in fields(value)}
    return value if value is None or isinstance(value, bool | int) else type(value).__name__


def trace_from_environment(owner: Owner) -> Trace | None:
    """What the environment variable asks for; None when it is not set.

    Raises:
        HandfastFault: SETTING_INVALID, the file can't be written.
    """
    path = os.environ.get(ENVIRONMENT_VARIABLE, "")
    return Trace(TraceFile(path), owner) if path else None
