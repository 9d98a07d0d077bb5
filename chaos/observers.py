"""Bystanders who look at the databases from outside the product, each on a thread and a connection of its own.

    RowProbe       a writer who wants one row, again and again: how long does it wait?
    PreparedWatch  which branches are prepared, from when to when
    TotalWatch     a reader who adds up all the money: when does it see half a payment?

They connect to the servers directly, past every proxy, so that what they measure is the product's doing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psycopg

from handfast.xid import Xid

Connection = psycopg.Connection[tuple[Any, ...]]
Connect = Callable[[], Connection]
NowS = Callable[[], float]

BLOCKED_S_MIN = 0.1
"""A write that took less was not blocked: a busy machine takes that long by itself."""

_PROBE_PAUSE_S = 0.02
_WATCH_PAUSE_S = 0.02
_RECONNECT_PAUSE_S = 0.05
_JOINED_GAP_S = 0.3
_LEAVE_S_MAX = 3.0


@dataclass(frozen=True, slots=True)
class Blocked:
    """A time in which a writer could not write its row.

    Args:
        database: ``accounts`` or ``ledger``.
        row: the account.
        start_s: since when, in seconds since the run began.
        end_s: until when.
        kind: ``locked``: somebody held the row; ``unreachable``: the database did not answer.
    """

    database: str
    row: int
    start_s: float
    end_s: float
    kind: Literal["locked", "unreachable"] = "locked"

    @property
    def seconds(self) -> float:
        """How long."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class InDoubt:
    """A time in which a branch was prepared.

    Args:
        database: where.
        gtrid: its transaction; the whole name when it is not one of ours.
        start_s: since when, in seconds since the run began.
        end_s: until when; None when it was never seen to end.
    """

    database: str
    gtrid: str
    start_s: float
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class HalfSeen:
    """A time in which a reader saw less, or more, money than there is."""

    start_s: float
    end_s: float
    difference: int


class Observer:
    """Looks again and again, and connects again when the connection was lost. Subclasses say what to look at.

    Args:
        name: for the thread.
        connects: open a connection to each database that it looks at.
        now_s: the run's clock.
        pause_s: the time between two looks.
    """

    def __init__(self, name: str, connects: Sequence[Connect], now_s: NowS, pause_s: float) -> None:
        self.now_s = now_s
        self._connects = connects
        self._pause_s = pause_s
        self._connections: list[Connection] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more, and close the books. A look that is stuck is cancelled."""
        self._stopping.set()
        self._thread.join(_LEAVE_S_MAX)
        if self._thread.is_alive():
            for connection in self._connections:
                _cancel(connection)
            self._thread.join(_LEAVE_S_MAX)
        self.finish()

    def look(self, connections: Sequence[Connection]) -> None:
        """Look once. What it raises (psycopg.Error) counts as a lost connection."""
        raise NotImplementedError

    def lost(self, since_s: float) -> None:
        """The connection was lost; the look began at ``since_s``."""

    def finish(self) -> None:
        """Close what is still open in the books."""

    def _run(self) -> None:
        while not self._stopping.is_set():
            since_s = self.now_s()
            try:
                if not self._connections:
                    self._connections = [connect() for connect in self._connects]
                self.look(self._connections)
                self._stopping.wait(self._pause_s)
            except psycopg.Error:
                self.lost(since_s)
                self._close()
                self._stopping.wait(_RECONNECT_PAUSE_S)
        self._close()

    def _close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections = []


def _cancel(connection: Connection) -> None:
    """Ask the server to cancel what runs; one that stands still can't be asked, and is not waited for."""
    with contextlib.suppress(psycopg.Error):
        connection.cancel_safe(timeout=_LEAVE_S_MAX)


class RowProbe(Observer):
    """A writer who wants one row. Each write is a transaction of its own, so that it holds the row for a moment only.

    Args:
        database: ``accounts`` or ``ledger``.
        row: the account.
        connect: opens a connection in autocommit.
        now_s: the run's clock.
    """

    def __init__(self, database: str, row: int, connect: Connect, now_s: NowS) -> None:
        super().__init__(f"probe-{database}-{row}", [connect], now_s, _PROBE_PAUSE_S)
        self.database = database
        self.row = row
        self.writes = 0
        self._blocked: list[Blocked] = []
        self._waiting_since_s: float | None = None
        self._unreachable_since_s: float | None = None

    def look(self, connections: Sequence[Connection]) -> None:
        """Write the row once."""
        self._waiting_since_s = started_s = self.now_s()
        if self._unreachable_since_s is not None:
            connections[0].execute("SELECT 1")
            self._record(self._unreachable_since_s, "unreachable")
            self._unreachable_since_s, self._waiting_since_s = None, self.now_s()
            started_s = self._waiting_since_s
        connections[0].execute("UPDATE account SET balance = balance WHERE id = %s", (self.row,))
        self._record(started_s, "locked")
        self._waiting_since_s = None
        self.writes += 1

    def lost(self, since_s: float) -> None:
        """The database is gone: the writer waits on."""
        if self._unreachable_since_s is None:
            self._unreachable_since_s = since_s
        self._waiting_since_s = None

    def finish(self) -> None:
        """A wait that was not over at the end counts until the end."""
        if self._unreachable_since_s is not None:
            self._record(self._unreachable_since_s, "unreachable")
        elif self._waiting_since_s is not None:
            self._record(self._waiting_since_s, "locked")
        self._unreachable_since_s = self._waiting_since_s = None

    @property
    def waiting_s(self) -> float:
        """For how long it has been waiting now."""
        since_s = self._unreachable_since_s if self._unreachable_since_s is not None else self._waiting_since_s
        return 0.0 if since_s is None else self.now_s() - since_s

    @property
    def blocked(self) -> Sequence[Blocked]:
        """When it was blocked, oldest first."""
        return tuple(self._blocked)

    def _record(self, start_s: float, kind: Literal["locked", "unreachable"]) -> None:
        end_s = self.now_s()
        if end_s - start_s >= BLOCKED_S_MIN:
            self._blocked.append(Blocked(self.database, self.row, start_s, end_s, kind))


class PreparedWatch(Observer):
    """Notes from when to when each branch was prepared in one database.

    Args:
        database: ``accounts`` or ``ledger``.
        connect: opens a connection in autocommit.
        now_s: the run's clock.
        of_unix: moves the server's times onto that clock.
    """

    _QUERY = (
        "SELECT gid, extract(epoch FROM prepared)::float FROM pg_prepared_xacts WHERE database = current_database()"
    )

    def __init__(self, database: str, connect: Connect, now_s: NowS, of_unix: Callable[[float], float]) -> None:
        super().__init__(f"prepared-{database}", [connect], now_s, _WATCH_PAUSE_S)
        self.database = database
        self._of_unix = of_unix
        self._open: dict[str, InDoubt] = {}
        self._ended: list[InDoubt] = []

    def look(self, connections: Sequence[Connection]) -> None:
        """Compare what is prepared with what was."""
        seen = connections[0].execute(self._QUERY).fetchall()
        now_s = self.now_s()
        there = {gid for gid, _ in seen}
        for gid in [gid for gid in self._open if gid not in there]:
            gone = self._open.pop(gid)
            self._ended.append(InDoubt(gone.database, gone.gtrid, gone.start_s, now_s))
        for gid, prepared_unix_s in seen:
            if gid not in self._open:
                self._open[gid] = InDoubt(self.database, gtrid_of(gid), self._of_unix(prepared_unix_s))

    @property
    def windows(self) -> Sequence[InDoubt]:
        """When branches were prepared; those that still are come last."""
        return (*self._ended, *self._open.values())

    @property
    def open(self) -> Sequence[InDoubt]:
        """The branches that are prepared now, as of the last look."""
        return tuple(self._open.values())


class TotalWatch(Observer):
    """A reader who adds up the money of both databases, and notes when the sum is not what it must be.

    It believes a sum only when the first database shows the same before and after it has read the second: so what it
    reports is not the skew of two reads, but the half of a payment that is really visible.

    Args:
        connects: open a connection to each of the two databases.
        total: the money that there is, in cents.
        now_s: the run's clock.
    """

    _QUERY = "SELECT sum(balance)::bigint FROM account"

    def __init__(self, connects: Sequence[Connect], total: int, now_s: NowS) -> None:
        super().__init__("total", connects, now_s, _WATCH_PAUSE_S)
        self._total = total
        self._seen: list[HalfSeen] = []
        self._since: tuple[float, int] | None = None

    def look(self, connections: Sequence[Connection]) -> None:
        """Add up once."""
        first, second = connections
        before, other, after = (self._sum(one) for one in (first, second, first))
        if before != after:
            return
        difference = before + other - self._total
        if self._since is not None and self._since[1] != difference:
            self._close_window()
        if difference and self._since is None:
            self._since = (self.now_s(), difference)

    def finish(self) -> None:
        """A half that is still visible at the end is written down until then."""
        if self._since is not None:
            self._close_window()

    @property
    def seen(self) -> Sequence[HalfSeen]:
        """When half a payment was visible."""
        return tuple(self._seen)

    def _sum(self, connection: Connection) -> int:
        row = connection.execute(self._QUERY).fetchone()
        return int(row[0]) if row else 0

    def _close_window(self) -> None:
        if self._since is not None:
            self._seen.append(HalfSeen(self._since[0], self.now_s(), self._since[1]))
        self._since = None


def gtrid_of(gid: str) -> str:
    """The transaction of a prepared branch; the whole name when it is not one of ours."""
    xid = Xid.from_gid(gid)
    return gid if xid is None else xid.gtrid


def joined(blocked: Sequence[Blocked]) -> list[Blocked]:
    """Put together what one writer felt as one wait: locked, then unreachable, then locked again."""
    result: list[Blocked] = []
    for one in sorted(blocked, key=lambda each: (each.database, each.row, each.start_s)):
        last = result[-1] if result else None
        if last and (last.database, last.row) == (one.database, one.row) and one.start_s - last.end_s < _JOINED_GAP_S:
            kind = last.kind if last.kind == one.kind else "locked"
            result[-1] = Blocked(one.database, one.row, last.start_s, max(one.end_s, last.end_s), kind)
        else:
            result.append(one)
    return result
