"""What is left when the power fails: the write-ahead log, cut at every byte of the last transactions, and worse.

A disk that loses power keeps some first part of what was written to the write-ahead log; one that lies keeps zeros in
the middle, or other bits. Whatever it is, the log that opens afterwards must hold exactly what it held after the last
force that lies wholly before the damage: what was acknowledged by then is there, and nothing is there that was not
written.

The pages are of 512 bytes here instead of 4096, so that every byte can be tried.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coordinator.log.chain import read_head
from coordinator.log.chained import chained
from coordinator.log.sqlite import SqliteLog
from coordinator.log.store import LogBroken
from coordinator.log.walk import Walk
from tests.conformance.decision_logs import (
    COORDINATOR_ID,
    abort,
    answer_of,
    commit,
    decide,
    ended,
    gtrid,
    participant,
    register,
)
from tests.unit.log.sqlite_logs import beside, opened, sqlite_log

PAGE_BYTES = 512
FRAME_BYTES = 24 + PAGE_BYTES
FORCES_CUT = 3
"""How many of the last forces are cut at every byte."""

FORCES_SPOILED = 2
"""In how many of them zeros begin, or a bit flips, at every byte."""

TABLES = ("decision", "participant", "resolution", "life", "checkpoint", "dropped", "head", "coordinator")

Content = list[list[tuple[Any, ...]]]
"""Every row of every table."""


@dataclass
class History:
    """A log whose last life ended in a power failure, and what it held after each of its forces.

    Args:
        path: the log's file, its write-ahead log beside it.
        forced: how long the write-ahead log was after each force, and what the log held then.
    """

    path: Path
    forced: list[tuple[int, Content]] = field(default_factory=list)

    def expected(self, damaged_at: int) -> Content:
        """What the log must hold when the bytes from here on can't be relied on."""
        return [content for length, content in self.forced if length <= damaged_at][-1]

    def last_forces(self, count: int = FORCES_CUT) -> range:
        """The bytes of the last forces, and the end."""
        return range(self.forced[-1 - count][0], self.forced[-1][0] + 1)


def read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)


def content_of(path: Path) -> Content:
    """Read what is there, as a start would find it, and leave the files as they are."""
    with closing(read_only(path)) as connection:
        connection.execute("BEGIN")
        return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES]


def wal_bytes(path: Path) -> int:
    return beside(path, "-wal").stat().st_size


async def _live_through(path: Path) -> History:
    """Write what a log can hold, and pull the plug: the files are copied while the log is open."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
    async with opened(sqlite_log(path)) as log:
        for number in range(1, 5):
            await decide(log, commit(number))
        log.end(ended(1))
        log.end(ended(2))
    history = History(path)

    def before_force(_: int) -> None:
        history.forced.append((wal_bytes(path), content_of(path)))  # what the force before this one has left

    async with opened(sqlite_log(path, before_force=before_force)) as log:
        await decide(log, commit(5))
        await register(log, participant("ledger", "a", "h:1"))
        log.end(ended(3))
        await decide(log, commit(6))
        await register(log, participant("ledger", "a", "h:2"))
        assert await answer_of(partial(log.forget_before, 3)) == 2
        log.end(ended(4))
        log.end(ended(5))
        await decide(log, abort(7))
        assert await answer_of(partial(log.forget, gtrid(4))) is None
        await decide(log, commit(8))
        before_force(0)
        for suffix in ("", "-wal"):
            shutil.copy(beside(path, suffix), beside(path.with_name("crashed.db"), suffix))
    history.path = path.with_name("crashed.db")
    return history


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return asyncio.run(_live_through(tmp_path_factory.mktemp("power") / "handfast.db"))


@pytest.fixture
def crashed(history: History, tmp_path: Path) -> Path:
    """The files as the power failure left them, to do worse to."""
    for suffix in ("", "-wal"):
        shutil.copy(beside(history.path, suffix), beside(tmp_path / "log.db", suffix))
    return tmp_path / "log.db"


def test_the_history_is_one_of_forces_that_each_changed_something(history: History) -> None:
    lengths = [length for length, _ in history.forced]
    assert lengths == sorted(set(lengths))
    assert all(before != after for (_, before), (_, after) in itertools.pairwise(history.forced))
    assert len(history.last_forces()) > 8 * FRAME_BYTES


def test_what_was_held_after_each_force_is_a_whole_chain(history: History, crashed: Path) -> None:
    for length, _ in reversed(history.forced):
        os.truncate(beside(crashed, "-wal"), length)
        with closing(read_only(crashed)) as connection:
            connection.execute("BEGIN")
            assert list(Walk().along(chained(connection), read_head(connection))) == []


def test_cut_at_any_byte_the_log_is_what_it_was_after_the_last_whole_force(history: History, crashed: Path) -> None:
    wrong = []
    for cut_at in reversed(history.last_forces()):
        os.truncate(beside(crashed, "-wal"), cut_at)
        if content_of(crashed) != history.expected(cut_at):
            wrong.append(cut_at)
    assert wrong == []


def test_zeros_from_any_byte_on_are_as_good_as_nothing(history: History, crashed: Path) -> None:
    wrong = []
    descriptor = os.open(beside(crashed, "-wal"), os.O_RDWR)
    content = beside(crashed, "-wal").read_bytes()
    damaged_at = len(content)
    for zero_from in reversed(history.last_forces(FORCES_SPOILED)[:-1]):
        if content[zero_from] == 0:
            continue  # nothing changes
        os.pwrite(descriptor, b"\0", zero_from)
        damaged_at = zero_from
        if content_of(crashed) != history.expected(damaged_at):
            wrong.append(zero_from)
    os.close(descriptor)
    assert wrong == []


def holes(history: History) -> Iterator[tuple[int, int]]:
    """Sectors and half frames that were never written, somewhere in the last forces."""
    for size in (512, FRAME_BYTES // 2):
        for start in range(history.last_forces().start, history.last_forces().stop - size, 128):
            yield start, size


def test_a_hole_anywhere_ends_the_log_before_it(history: History, crashed: Path) -> None:
    wrong = []
    content = beside(crashed, "-wal").read_bytes()
    for start, size in holes(history):
        changed = [at for at in range(start, start + size) if content[at]]
        beside(crashed, "-wal").write_bytes(content[:start] + bytes(size) + content[start + size :])
        if content_of(crashed) != history.expected(changed[0] if changed else len(content)):
            wrong.append((start, size))
    assert wrong == []


def test_a_bit_that_flips_in_any_byte_ends_the_log_before_it(history: History, crashed: Path) -> None:
    wrong = []
    content = beside(crashed, "-wal").read_bytes()
    descriptor = os.open(beside(crashed, "-wal"), os.O_RDWR)
    for at in history.last_forces(FORCES_SPOILED)[:-1]:
        os.pwrite(descriptor, bytes([content[at] ^ 1 << at % 8]), at)
        if content_of(crashed) != history.expected(at):
            wrong.append(at)
        os.pwrite(descriptor, content[at : at + 1], at)
    os.close(descriptor)
    assert wrong == []


def edges(history: History) -> list[int]:
    """Cuts around the end of each frame."""
    ends = range(history.last_forces().start, history.last_forces().stop, FRAME_BYTES)
    return sorted({cut for end in ends for cut in (end - 1, end, end + 24) if cut <= history.forced[-1][0]})


async def test_a_coordinator_goes_on_from_wherever_the_log_was_cut(history: History, tmp_path: Path) -> None:
    broken: list[LogBroken] = []
    for cut_at in edges(history):
        path = tmp_path / f"{cut_at}.db"
        shutil.copy(history.path, path)
        beside(path, "-wal").write_bytes(beside(history.path, "-wal").read_bytes()[:cut_at])
        decisions = history.expected(cut_at)[0]
        log = SqliteLog(path, make_coordinator_id=lambda: COORDINATOR_ID, on_broken=broken.append, unix_ms=lambda: 1)
        assert (await log.open()).epoch == 3
        assert [known.decision.gtrid for known in log.unended()] == [row[3] for row in decisions if row[13] is None]
        await decide(log, commit(9))
        await log.close()
        with closing(read_only(path)) as connection:
            assert list(Walk().along(chained(connection), read_head(connection))) == []
    assert broken == []
