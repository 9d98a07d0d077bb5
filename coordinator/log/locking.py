"""One log, one coordinator: a lock that the operating system drops when its holder dies, however it dies.

Two coordinators on one log would each recover the other's transactions, and roll back what the other is preparing. So
whoever opens a log first takes ``flock`` on a file beside it. The lock belongs to the open file and not to the process,
so that a second open in the same process is refused as well; and it is gone with a SIGKILL, so that no stale lock waits
for a person. The lock file itself stays: removing it would let two processes lock two files of the same name.

The log itself can't be the file that is locked: closing any descriptor of it would drop the locks that SQLite holds on
it in the same process. For the same reason nobody opens the log before this lock is theirs.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

from handfast.catalog import HandfastFault

HOLDER_BYTES_MAX = 200


class LogLock:
    """The right to use a log.

    Args:
        log: the log's file, symbolic links resolved, so that every name of it leads to the same lock.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._path = Path(f"{log}.lock")
        self._descriptor: int | None = None

    def acquire(self, now_unix_ms: int) -> None:
        """Take the lock, or fail at once.

        Args:
            now_unix_ms: the time, in milliseconds since 1970, for the word that is left of who holds the lock.

        Raises:
            HandfastFault: LOG_LOCKED, naming the holder; LOG_PATH_UNUSABLE when there can be no lock file.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            problem = f"the lock file {self._path} can't be opened: {error.strerror}"
            raise HandfastFault("LOG_PATH_UNUSABLE", path=self._log, problem=problem) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._sign(descriptor, now_unix_ms)
        except BlockingIOError as error:
            holder = os.pread(descriptor, HOLDER_BYTES_MAX, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise HandfastFault("LOG_LOCKED", path=self._log, holder=holder or "it gives no name") from error
        except OSError as error:
            os.close(descriptor)
            problem = f"the lock file {self._path} can't be used: {error.strerror}"
            raise HandfastFault("LOG_PATH_UNUSABLE", path=self._log, problem=problem) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _sign(self, descriptor: int, now_unix_ms: int) -> None:
        """Leave word of who holds the lock, for whoever is refused."""
        since = datetime.fromtimestamp(now_unix_ms // 1000, tz=UTC)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()}, since {since:%Y-%m-%d %H:%M:%S} UTC\n".encode(), 0)
