"""Reading traces (docs/trace.md): files in, lines in the order in which they happened out."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = 1
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a trace.

    Args:
        where: file and number, as an editor opens it.
        told: what it says, by the page's keys.
    """

    where: str
    told: Mapping[str, Any]

    def __getattr__(self, key: str) -> Any:
        return self.told.get(key)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The event's own."""
        return self.told.get("fields") or _NOTHING

    @property
    def effects(self) -> Mapping[str, Any]:
        """What came out of the step."""
        return self.told.get("effects") or _NOTHING

    @property
    def who(self) -> str:
        """The process, in words."""
        return f"{self.role} {self.name or '-'} ({self.pid})"


@dataclass(frozen=True, slots=True)
class Traces:
    """What files hold.

    Args:
        lines: every line, in order.
        unreadable: where something stands that is no line of a trace. A last line that a death or a full disk cut off
            counts, for something is missing then.
    """

    lines: Sequence[Line]
    unreadable: Sequence[str]


def read(paths: Iterable[Path]) -> Traces:
    """Read traces.

    In a file, what stands before came before. Lines of several files are merged by their time since 1970, each file
    keeping its own order, which is true as long as the files come from one machine.

    Raises:
        OSError: a file can't be read.
    """
    unreadable: list[str] = []
    files = [[*_lines(path, unreadable)] for path in paths]
    merged = heapq.merge(*(_timed(lines) for lines in files), key=lambda timed: timed[0])
    return Traces([line for _, line in merged], unreadable)


def parse(text: str, name: str, unreadable: list[str]) -> Iterator[Line]:
    """The lines of one file's text; what is none is added to ``unreadable``."""
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{name}:{number}"
        try:
            told = json.loads(line) if line else None
        except ValueError:
            unreadable.append(where)
            continue
        if told is None:
            continue  # where a full disk cut a line off, the next one begins with an end
        if isinstance(told, dict) and told.get("v") == VERSION and isinstance(told.get("event"), str):
            yield Line(where, told)
        else:
            unreadable.append(where)


def _lines(path: Path, unreadable: list[str]) -> Iterator[Line]:
    return parse(path.read_text(encoding="utf-8", errors="replace"), str(path), unreadable)


def _timed(lines: Sequence[Line]) -> Iterator[tuple[int, Line]]:
    """Each line with a time that never goes back, whatever the clock did."""
    latest_us = 0
    for line in lines:
        latest_us = max(latest_us, int(line.unix_us or 0))
        yield latest_us, line
