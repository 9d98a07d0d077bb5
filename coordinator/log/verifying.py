"""The whole walk: every record of a log, and what to do about each that is wrong.

``walk`` says what can be wrong with records; here SQLite's own structure is looked at first (an entry that is missing
from an index hides an unfinished transaction from recovery as well as a missing row does), the rows that are replaced
rather than appended last, and what was found is put into words that somebody can act on. Nothing is ever repaired: a
decision that can't be read can't be made up.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from coordinator.log.chain import Head
from coordinator.log.chained import DROPPED, Chained, chained, without_place
from coordinator.log.checking import check_books, read_books
from coordinator.log.reading import read_log
from coordinator.log.walk import Finding, Walk, Wrong

FINDINGS_MAX = 100
"""How many findings are told one by one."""

INTEGRITY_FINDINGS_MAX = 20

_NOTED = re.compile(r"(?P<seq>[0-9]{1,18}):(?P<hash>[0-9a-f]{64})")

_MENDS = {
    Wrong.DAMAGED: "No branch waits for this record. Keep a copy of the files, and look for the cause (disk, memory). "
    "A coordinator starts only when it is not among the newest records.",
    Wrong.CHANGED: "Somebody changed the file who knew how. Compare it with a replica or an earlier `handfast log "
    "export`; `handfast audit` compares its decisions with the databases.",
    Wrong.MISSING: "What it said can't be told from here. Look for it in a replica or an earlier `handfast log "
    "export`. While a branch is in doubt, don't start a coordinator on this file: it would presume an abort.",
    Wrong.INSERTED: "Handfast did not write it there. Compare it with a replica or an earlier `handfast log export`; "
    "`handfast audit` compares its decision with the databases.",
    Wrong.BOOKS: "The rows that say whose log it is and where it ends are rewritten all the time: an old page among "
    "new ones looks like this. Put a replica of the log in its place.",
    Wrong.FILE: "Put a replica of the log in its place. Without one, copy its files aside and try `.recover` of "
    "SQLite's command line on the copy; then run `handfast log verify` on what it makes.",
    Wrong.OTHER_LOG: "This is an old copy, its end was lost, or it was written anew. Don't start a coordinator on it "
    'before you know which; docs/guide-operations.md, "The log is lost, or old", goes on from there.',
}
_MEND_WAITING = (
    "Some branch may wait for this decision, so no coordinator starts on this log. Put a replica of the log in its "
    'place; without one, end the transaction\'s branches by hand: docs/guide-operations.md, "The log is damaged".'
)


@dataclass(frozen=True, slots=True)
class NotedHead:
    """Where the chain ended at some earlier time, kept where nobody who writes the log can change it.

    Args:
        seq: the position.
        hash: the hash there.
    """

    seq: int
    hash: bytes

    @classmethod
    def parse(cls, text: str) -> NotedHead:
        """Read ``SEQ:HASH``.

        Raises:
            ValueError: it is not of that form.
        """
        found = _NOTED.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a position and 64 hexadecimal digits, with a colon between")
        return cls(int(found["seq"]), bytes.fromhex(found["hash"]))


@dataclass(slots=True)
class Verification:
    """What the walk found.

    Args:
        coordinator_id: whose log it is; empty when that can't be read.
        epoch: its newest life.
        head: where the chain ends; None when that can't be read.
        records: how many there are, by kind.
        dropped: how many positions were lawfully dropped.
        noted: of a head noted earlier: ``holds``, ``differs``, or ``dropped`` when retention has taken that position
            since; empty when none was given.
        findings: what is wrong, with what to do about it, at most FINDINGS_MAX.
        left_out: how many findings there are beyond these.
    """

    coordinator_id: str = ""
    epoch: int = 0
    head: Head | None = None
    records: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    noted: str = ""
    findings: list[tuple[Finding, str]] = field(default_factory=list)
    left_out: int = 0


def verify_log(path: Path, noted: NotedHead | None = None) -> Verification:
    """Walk a log from its first record to its last.

    Args:
        path: the log's file; it may be in use.
        noted: a head of this log from earlier, which it must continue.

    Raises:
        HandfastFault: LOG_PATH_UNUSABLE, LOG_SCHEMA_NEWER, LOG_WITHOUT_CHAIN, or LOG_CORRUPT when nothing of the file
            can be read.
    """
    return read_log(path, partial(_verify, noted))


def _verify(noted: NotedHead | None, connection: sqlite3.Connection) -> Verification:
    found = Verification()
    for look in (_look_at_file, _look_at_books, partial(_look_at_records, noted)):
        for finding in _until_unreadable(look, connection, found):
            if len(found.findings) < FINDINGS_MAX:
                found.findings.append((finding, _mend(connection, finding)))
            else:
                found.left_out += 1
    return found


Look = Callable[[sqlite3.Connection, Verification], Iterator[Finding]]


def _until_unreadable(look: Look, connection: sqlite3.Connection, found: Verification) -> Iterator[Finding]:
    try:
        yield from look(connection, found)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        read = found.records.total()
        yield Finding(Wrong.FILE, "", None, "", f"SQLite can't read on after {read} records: {error}")


def _look_at_file(connection: sqlite3.Connection, _: Verification) -> Iterator[Finding]:
    for (line,) in connection.execute(f"PRAGMA integrity_check({INTEGRITY_FINDINGS_MAX})").fetchall():
        if line != "ok":
            yield Finding(Wrong.FILE, "", None, "", f"SQLite finds the file's structure broken: {line}")


def _look_at_books(connection: sqlite3.Connection, found: Verification) -> Iterator[Finding]:
    found.head, life, findings = read_books(connection)
    yield from findings
    if life is not None:
        found.coordinator_id, found.epoch = life.coordinator_id, life.epoch
        yield from check_books(connection, life)


def _look_at_records(noted: NotedHead | None, connection: sqlite3.Connection, found: Verification) -> Iterator[Finding]:
    for gtrid, name in without_place(connection):
        yield Finding(Wrong.DAMAGED, "end", None, gtrid, f"{name} has no position that can be one")
    walk = Walk()
    for record in chained(connection):
        found.records[record.kind] += record.kind != DROPPED
        found.dropped += record.last_seq - record.first_seq + 1 if record.kind == DROPPED else 0
        yield from walk.step(record)
        if noted is not None and record.first_seq <= noted.seq <= record.last_seq:
            yield from _compare(record, noted, found)
    if found.head is not None:
        yield from walk.finish(found.head)
        if noted is not None and noted.seq > found.head.seq:
            found.noted = "differs"
            problem = f"the log ends at position {found.head.seq}, before the head that was noted at {noted.seq}"
            yield Finding(Wrong.OTHER_LOG, "", noted.seq, "", problem)


def _compare(record: Chained, noted: NotedHead, found: Verification) -> Iterator[Finding]:
    if record.last_seq != noted.seq:
        found.noted = "dropped"
    elif record.hash == noted.hash:
        found.noted = "holds"
    else:
        found.noted = "differs"
        problem = f"{record.name} has another hash than the head that was noted there"
        yield Finding(Wrong.OTHER_LOG, record.kind, noted.seq, record.gtrid, problem)


def _mend(connection: sqlite3.Connection, finding: Finding) -> str:
    if finding.wrong is Wrong.DAMAGED and finding.kind == "decision":
        waits = "SELECT 1 FROM decision WHERE seq = ? AND ended_unix_ms IS NULL"
        if connection.execute(waits, (finding.seq,)).fetchall():
            return _MEND_WAITING
    return _MENDS[finding.wrong]
