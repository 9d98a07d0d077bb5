"""Opening a log's files, and saying exactly why one can't be opened.

The order of the steps matters. First comes what can be seen without opening anything; then the lock, because nobody
else may touch the files from here on; then the file itself; and only then SQLite, which would otherwise create, recover
or overwrite before anyone has said no.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from coordinator.log.chain import Head, read_head
from coordinator.log.checking import check_at_start
from coordinator.log.identity import DamagedIdentity, Life, begin_life
from coordinator.log.locking import LogLock
from coordinator.log.rows import DamagedRow
from coordinator.log.schema import migrate, refuse_foreign
from handfast.catalog import HandfastFault

QUICK_CHECK_BYTES_MAX = 16 << 20
"""Up to this size the whole file is checked at open (20 ms). A larger one would delay a restart, which is just when
branches wait in doubt; there, damage shows when it is read."""

BUSY_TIMEOUT_S = 2.0
"""How long to wait for a program that writes to the file against all advice, in seconds."""

_OUTSIDE_THE_FILE = {
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
"""What SQLite reports when the machine is at fault. Anything else means that the file holds what it should not."""


@dataclass(frozen=True, slots=True)
class OpenLog:
    """A log's open files.

    Args:
        life: whose log it is, and in which epoch.
        head: where its chain of records ends.
        writer: the connection for the writer's thread.
        reader: the read-only connection for the loop's thread.
        lock: keeps others out.
    """

    life: Life
    head: Head
    writer: sqlite3.Connection
    reader: sqlite3.Connection
    lock: LogLock

    def close(self) -> None:
        """Close everything. After the reader, closing the writer moves what is in the write-ahead log into the file."""
        try:
            self.reader.close()
            self.writer.close()
        finally:
            self.lock.release()


def open_files(
    log: Path,
    *,
    make_coordinator_id: Callable[[], str],
    unix_ms: Callable[[], int],
    expected_coordinator_id: str | None = None,
) -> OpenLog:
    """Open or create a log, and raise its epoch.

    Args:
        log: the file, symbolic links resolved.
        make_coordinator_id: asked when the log is new.
        unix_ms: tells when the life starts, in milliseconds since 1970.
        expected_coordinator_id: whose log this must be; None accepts any.

    Raises:
        HandfastFault: LOG_PATH_UNUSABLE, LOG_LOCKED, LOG_CORRUPT, LOG_RECORD_DAMAGED, LOG_CHAIN_BROKEN,
            LOG_SCHEMA_NEWER or LOG_OF_ANOTHER.
    """
    _check_place(log)
    with ExitStack() as undo:
        lock = LogLock(log)
        lock.acquire(unix_ms())
        undo.callback(lock.release)
        is_new = _check_file(log)
        if is_new and expected_coordinator_id is not None:
            # A new log under an old id would presume every commit of that coordinator to be an abort.
            found = "nobody: there is no log there"
            raise HandfastFault("LOG_OF_ANOTHER", path=log, found=found, expected=expected_coordinator_id)
        with naming_damage(str(log)):
            # Used by one thread at a time: the one that opens it, then the writer's, then the one that closes it.
            writer = sqlite3.connect(log, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)
            undo.callback(writer.close)
            writer.text_factory = lenient_text
            refuse_foreign(writer, str(log))
            _check_small(log, writer)
            _make_durable(log, writer)
            migrate(writer, str(log))
            check_at_start(writer, str(log))
            life = begin_life(
                writer,
                str(log),
                make_coordinator_id=make_coordinator_id,
                unix_ms=unix_ms,
                expected_coordinator_id=expected_coordinator_id,
            )
            _make_names_durable(log)
            head = read_head(writer)
            reader = connect_reader(log)
            undo.callback(reader.close)
        undo.pop_all()
        return OpenLog(life, head, writer, reader, lock)


def connect_reader(log: Path) -> sqlite3.Connection:
    """Connect for reading what is durable.

    In WAL mode a reader sees a transaction once the writer has published it in the WAL's index, and with
    synchronous=FULL the writer does so after the fsync: what can be read is durable, and what is durable can be read.
    From its first read on, the connection counts as open with SQLite: a writer's connection that is closed while this
    one is open makes no checkpoint.
    """
    reader = sqlite3.connect(f"{log.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    reader.text_factory = lenient_text
    try:
        reader.execute("SELECT epoch FROM coordinator").fetchall()
    except BaseException:
        reader.close()
        raise
    return reader


def lenient_text(raw: bytes) -> str:
    """Read text that is not UTF-8 as something else rather than fail, so that the checksum can name the record."""
    return raw.decode(errors="replace")


@contextmanager
def naming_damage(path: str, gtrid: str = "") -> Iterator[None]:
    """Turn what SQLite says about an unusable file into an entry of the catalog."""
    try:
        yield
    except DamagedIdentity as error:
        raise HandfastFault("LOG_CORRUPT", path=path, problem=error) from error
    except DamagedRow as error:
        raise HandfastFault("LOG_RECORD_DAMAGED", gtrid=error.gtrid, path=path, problem=error) from error
    except UnicodeDecodeError as error:
        # SQLite's message itself may quote what was damaged.
        raise HandfastFault("LOG_CORRUPT", gtrid=gtrid, path=path, problem=error) from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            holder = "a program that is not Handfast writes to it"
            raise HandfastFault("LOG_LOCKED", gtrid=gtrid, path=path, holder=holder) from error
        fault = "LOG_PATH_UNUSABLE" if code in _OUTSIDE_THE_FILE else "LOG_CORRUPT"
        raise HandfastFault(fault, gtrid=gtrid, path=path, problem=error) from error


def _check_place(log: Path) -> None:
    """Refuse what can be refused without opening anything."""
    problem = ""
    if log.is_dir():
        problem = "it is a folder"
    elif log.exists() and not stat.S_ISREG(log.stat().st_mode):
        problem = "it is no regular file"
    elif not log.parent.exists():
        problem = f"the folder {log.parent} does not exist"
    elif not log.parent.is_dir():
        problem = f"{log.parent} is no folder"
    if problem:
        raise HandfastFault("LOG_PATH_UNUSABLE", path=log, problem=problem)


def _check_file(log: Path) -> bool:
    """Refuse a file that can't be written; tell whether the log is new."""
    try:
        descriptor = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        size = 0
    except OSError as error:
        raise HandfastFault("LOG_PATH_UNUSABLE", path=log, problem=error.strerror) from error
    else:
        size = os.fstat(descriptor).st_size
        os.close(descriptor)
    wal = Path(f"{log}-wal")
    if size == 0 and wal.exists() and wal.stat().st_size > 0:
        # SQLite would take the file for a new one and throw the write-ahead log away, decisions and all.
        raise HandfastFault(
            "LOG_CORRUPT", path=log, problem=f"the file is gone, but its write-ahead log {wal} is there"
        )
    return size == 0


def _make_durable(log: Path, writer: sqlite3.Connection) -> None:
    """Set the connection up so that each COMMIT is forced."""
    (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        problem = f"SQLite can't keep a write-ahead log there (journal mode {mode})"
        raise HandfastFault("LOG_PATH_UNUSABLE", path=log, problem=problem)
    writer.execute("PRAGMA synchronous = FULL")
    writer.execute("PRAGMA fullfsync = ON")  # on macOS, where fsync alone reaches only the drive's cache
    writer.execute("PRAGMA checkpoint_fullfsync = ON")
    writer.execute("PRAGMA wal_autocheckpoint = 0")  # the writer does it between forces, not inside one


def _make_names_durable(log: Path) -> None:
    """Force the folder, in which the log and its write-ahead log may be new names.

    SQLite forces it when it makes a file, and takes no notice when that fails. A power loss could then take the whole
    write-ahead log away, with every commit in it.
    """
    try:
        folder = os.open(log.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems can't, and need not
            problem = f"its folder can't be forced to the disk: {error.strerror}"
            raise HandfastFault("LOG_PATH_UNUSABLE", path=log, problem=problem) from error


def _check_small(log: Path, writer: sqlite3.Connection) -> None:
    if log.stat().st_size > QUICK_CHECK_BYTES_MAX:
        return
    (finding,) = writer.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise HandfastFault("LOG_CORRUPT", path=log, problem=finding)
