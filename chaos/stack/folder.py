"""The temporary folder of one stack: made private, removed at the end, and swept later when there was no end.

A process killed with SIGKILL removes nothing. So each folder holds a file that its owner keeps locked; the lock goes
with the owner, and the next stack of the same user removes the folders whose lock is free.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

from chaos.stack.errors import StackError

_PREFIX = "handfast-"
_OWNER_FILE = ".owner"


class StackFolder:
    """A temporary folder.

    Args:
        keep: leave it where it is at the end, for somebody to look into.
        base: the folder to make it in; the system's temporary folder when None.

    Raises:
        StackError: run as root, and no temporary folder can be entered by the user that Postgres must run as.
    """

    name = "folder"

    def __init__(self, *, keep: bool = False, base: Path | None = None) -> None:
        self.keep = keep
        base = base or _temporary_folder()
        _sweep(base)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        if _is_root():
            # Postgres refuses to run as root: its user must be able to pass through, though not to look around.
            self.path.chmod(0o711)
        self._owner = None if keep else _lock(self.path)

    def sub(self, name: str) -> Path:
        """Make, or find, a folder inside. Returns its path."""
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder

    def close(self) -> None:
        """Remove the folder, unless it is to be kept.

        Raises:
            OSError: it could not be removed.
        """
        if not self.keep and self.path.exists():
            shutil.rmtree(self.path)
        if self._owner is not None:
            self._owner.close()


def _lock(folder: Path) -> IO[bytes]:
    """Lock a new owner file, and give it its name only then: nobody ever sees one that is not locked."""
    draft = folder / (_OWNER_FILE + ".new")
    owner = draft.open("wb")
    fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    draft.rename(folder / _OWNER_FILE)
    return owner


def _sweep(base: Path) -> None:
    """Remove the folders of stacks that were killed."""
    for owner_file in base.glob(f"{_PREFIX}*/{_OWNER_FILE}"):
        try:
            _remove_if_abandoned(owner_file)
        except OSError:
            continue  # owned by a living stack or by another user, or removed by its owner meanwhile


def _remove_if_abandoned(owner_file: Path) -> None:
    if owner_file.stat().st_uid != os.geteuid():
        return
    with owner_file.open("rb") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(owner_file.parent)


def _temporary_folder() -> Path:
    """The system's temporary folder; as root, one that other users can enter."""
    for candidate in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if not _is_root() or _others_can_enter(Path(candidate)):
            return Path(candidate)
    raise StackError(
        "Running as root, Postgres must run as another user, and no temporary folder can be entered by one. "
        "Set TMPDIR to a folder that all users can enter (chmod o+x on it and on every folder above it)."
    )


def _others_can_enter(folder: Path) -> bool:
    resolved = folder.resolve()
    return resolved.is_dir() and all(part.stat().st_mode & 0o001 for part in (resolved, *resolved.parents))


def _is_root() -> bool:
    return os.geteuid() == 0
