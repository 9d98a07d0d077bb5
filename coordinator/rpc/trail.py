"""The audit trail: what operators did, and who was turned away.

One JSON object a line, appended to a file beside the log and never changed. The decision log holds the same
interventions durably (``ResolutionRecord``); the trail adds what was refused, and can be shipped elsewhere as it grows:
the file is opened for each line, so that it may be moved away at any time.

Somebody who is refused may try a thousand times a second. Of one caller's refusals so many are written in
a while and no more, and the next line says how many were left out, so that nobody fills a disk from outside.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from handfast.masking import masked

logger = logging.getLogger(__name__)

KEPT_MAX = 10_000
"""Entries kept in memory for reports, the newest."""

WINDOW_S = 10.0
WINDOW_REFUSALS_MAX = 10
"""Refusals of one caller that are written in one window."""

REFUSED_MAX = 1_000
"""Callers whose refusals are counted; past it the oldest is forgotten."""

TEXT_MAX = 1_024


class TrailClock(Protocol):
    """What the trail needs of a clock."""

    def now_s(self) -> float:
        """Seconds of a clock that only goes forward."""

    def unix_ms(self) -> int:
        """Milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class TrailEntry:
    """One thing that somebody did, or was not allowed to do.

    Args:
        unix_ms: when, in milliseconds since 1970.
        who: who.
        peer: where from, as gRPC names it; empty when not known.
        action: what, as a verb with its object.
        gtrid: the transaction concerned, or empty.
        reason: why, in the operator's words.
        before: where the transaction stood.
        after: where it stood afterwards.
        error: the code of the refusal; empty when it was done.
        left_out: refusals of the same caller since their last line, left out because there were too many.
    """

    unix_ms: int
    who: str
    peer: str
    action: str
    gtrid: str = ""
    reason: str = ""
    before: str = ""
    after: str = ""
    error: str = ""
    left_out: int = 0


@dataclass(slots=True)
class _Window:
    """How often one caller was refused of late."""

    since_s: float
    written: int = 0
    left_out: int = 0


class Trail:
    """The trail.

    Args:
        clock: where time comes from.
        path: the file; None keeps it in memory alone.
    """

    def __init__(self, clock: TrailClock, path: Path | None = None) -> None:
        self._clock = clock
        self._path = path
        self._kept: deque[TrailEntry] = deque(_read(path) if path else (), maxlen=KEPT_MAX)
        self._refused: dict[tuple[str, str], _Window] = {}

    def entries(self, limit: int, gtrid: str = "", *, refused_only: bool = False) -> list[TrailEntry]:
        """The newest entries, the newest first.

        Args:
            limit: how many at most.
            gtrid: only about this transaction; empty means all.
            refused_only: only what was refused.
        """
        fitting = (
            entry
            for entry in reversed(self._kept)
            if (not gtrid or entry.gtrid == gtrid) and (entry.error or not refused_only)
        )
        return list(islice(fitting, limit))

    def did(
        self, who: str, action: str, *, peer: str, gtrid: str, reason: str, before: str, after: str, error: str = ""
    ) -> None:
        """Write what an operator did, or tried."""
        now = self._clock.unix_ms()
        self._append(TrailEntry(now, who, peer, action, gtrid, masked(reason)[:TEXT_MAX], before, after, error))

    def denied(self, who: str, action: str, code: str, *, gtrid: str = "", peer: str = "") -> None:
        """Write that somebody was refused, unless they are refused all the time."""
        left_out = self._left_out(who, code)
        if left_out is None:
            return
        logger.warning("denied: %s may not %s (%s) gtrid=%s peer=%s", who, action, code, gtrid or "-", peer or "-")
        entry = TrailEntry(self._clock.unix_ms(), who, peer, action, gtrid, error=code, left_out=left_out)
        self._append(entry)

    def _left_out(self, who: str, code: str) -> int | None:
        """How many lines were left out before this one; None when this one is left out as well."""
        window = self._refused.get((who, code))
        now_s = self._clock.now_s()
        if window is None:
            if len(self._refused) >= REFUSED_MAX:
                del self._refused[next(iter(self._refused))]
            window = self._refused[who, code] = _Window(now_s)
        elif now_s - window.since_s >= WINDOW_S:
            window.since_s, window.written = now_s, 0
        if window.written >= WINDOW_REFUSALS_MAX:
            window.left_out += 1
            return None
        window.written += 1
        left_out, window.left_out = window.left_out, 0
        return left_out

    def _append(self, entry: TrailEntry) -> None:
        self._kept.append(entry)
        if self._path is None:
            return
        line = json.dumps(asdict(entry), ensure_ascii=True) + "\n"
        try:
            opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(opened, line.encode())
            finally:
                os.close(opened)
        except OSError as problem:
            # What was done is in the decision log as well; what was refused stays refused.
            logger.error("the audit trail %s lost a line: %s: %s", self._path, problem, line.strip())


def _read(path: Path) -> list[TrailEntry]:
    """The entries of earlier lives; a line that a crash cut off is left out."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[-KEPT_MAX:]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as problem:
        logger.error("the audit trail %s can't be read: %s", path, problem)
        return []
    for number, line in enumerate(lines, 1):
        try:
            found.append(TrailEntry(**json.loads(line)))
        except (ValueError, TypeError) as problem:
            logger.warning("line %d of the audit trail %s can't be read: %s", number, path, problem)
    return found
