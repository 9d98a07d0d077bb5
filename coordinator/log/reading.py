"""Reading a log from outside the coordinator: closed, or while it is in use, and leaving no trace either way.

A log in use is read through SQLite's own snapshot: what was durable at the first read, and nothing of what comes after,
however long it takes. The write-ahead log can't start over meanwhile, so it grows by what is written.

A closed log has no write-ahead log, and SQLite would make an empty one beside it, with whatever rights the reader has.
So such a file is read as one that nobody changes; and since somebody may, by starting a coordinator, it is looked at
again afterwards, and read once more if it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from coordinator.log.files import lenient_text, naming_damage
from coordinator.log.schema import APPLICATION_ID, migrations, refuse_newer
from handfast.catalog import HandfastFault

Read = TypeVar("Read")


def read_log(path: Path, read: Callable[[sqlite3.Connection], Read]) -> Read:
    """Read from a log without touching it.

    Args:
        path: the log's file.
        read: reads, and may be called a second time when a closed log was opened meanwhile.

    Raises:
        HandfastFault: LOG_PATH_UNUSABLE, LOG_CORRUPT, LOG_SCHEMA_NEWER or LOG_WITHOUT_CHAIN.
    """
    log = path.resolve()
    if not log.is_file():
        problem = "it is a folder" if log.is_dir() else "there is no such file"
        raise HandfastFault("LOG_PATH_UNUSABLE", path=path, problem=problem)
    if _in_use(log):
        return _read_once(log, read, "mode=ro")
    before = _state(log)
    found = _read_once(log, read, "mode=ro&immutable=1")
    return found if _state(log) == before and not _in_use(log) else _read_once(log, read, "mode=ro")


def _in_use(log: Path) -> bool:
    """Whether there is a write-ahead log that belongs to what the file says."""
    wal = Path(f"{log}-wal")
    return wal.exists() and wal.stat().st_size > 0


def _state(log: Path) -> tuple[int, int]:
    found = log.stat()
    return found.st_mtime_ns, found.st_size


def _read_once(log: Path, read: Callable[[sqlite3.Connection], Read], how: str) -> Read:
    with naming_damage(str(log)), _connected(log, how) as connection:
        return read(connection)


@contextmanager
def _connected(log: Path, how: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{log.as_uri()}?{how}", uri=True, isolation_level=None)) as connection:
        connection.text_factory = lenient_text
        connection.execute("BEGIN")
        _refuse_what_has_no_chain(connection, str(log))
        yield connection


def _refuse_what_has_no_chain(connection: sqlite3.Connection, path: str) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if application_id != APPLICATION_ID or migrations.migrations_table not in tables:
        raise HandfastFault("LOG_PATH_UNUSABLE", path=path, problem="it is no decision log")
    refuse_newer(connection, path)
    if "head" not in tables:
        raise HandfastFault("LOG_WITHOUT_CHAIN", path=path)
