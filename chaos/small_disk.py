"""A file system that is small enough to be filled, for one process and what it starts.

A tmpfs, mounted in a user and mount namespace of the process's own: nobody else sees it, no root is needed, and it is
gone with the process. Linux only. From outside it is reached through ``/proc/PID/root``.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from chaos.stack import MissingSoftware

_MOUNT = 'mount -t tmpfs -o size="$1"k tmpfs "$2" && shift 2 && exec "$@"'
_NAMESPACE = ("--user", "--map-root-user", "--mount")
_TRY_S_MAX = 10.0
_CHUNKS_BYTES = (65_536, 512, 1)


def on_small_disk(argv: Sequence[str], folder: Path, kilobytes: int) -> list[str]:
    """The command that runs another with a small file system in place of a folder.

    Args:
        argv: the command; keeps its process id.
        folder: exists; its contents are hidden from the command.
        kilobytes: the size.

    Raises:
        MissingSoftware: this machine does not allow it; says why.
    """
    prefix = _prefix()
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=_TRY_S_MAX, check=False)
    if tried.returncode != 0:
        raise MissingSoftware(f"A small file system needs user namespaces, which this machine refuses: {tried.stderr}")
    return [*prefix, "sh", "-c", _MOUNT, "small-disk", str(kilobytes), str(folder), *argv]


def _prefix() -> list[str]:
    unshare = shutil.which("unshare")
    if unshare is None:
        raise MissingSoftware("A small file system needs Linux and its program `unshare` (package util-linux).")
    return [unshare, *_NAMESPACE]


def fill(filler: Path) -> None:
    """Write a file until its file system is full, to the last byte.

    Raises:
        OSError: it failed for another reason.
    """
    with filler.open("wb", buffering=0) as file:
        for size in _CHUNKS_BYTES:
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
