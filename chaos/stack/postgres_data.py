"""Data directories: one initdb per stack and version, then copies, so that many clusters are cheap.

A copy would be the same cluster to everybody who asks: initdb gives each cluster a "system identifier", and whoever
wants to know whether two addresses are one server compares those. So each copy gets an identifier of its own, as a
program that splits a cluster does it: write another into the control file, then let pg_resetwal, which works on a
cluster that is shut down, write the checksum and a write-ahead log that agree with it.
"""

import ctypes
import os
import shutil
import threading
from pathlib import Path

from chaos.stack.postgres_binaries import PostgresBinaries
from chaos.stack.spawn import User

_IPC_RMID = 0
_SYSTEM_IDENTIFIER_BYTES = 8
_WAL_SEGMENT = "[0-9A-F]" * 24

_making = threading.Lock()


def make_data(binaries: PostgresBinaries, stack_folder: Path, data: Path) -> None:
    """Make a data directory, owned by the user who will run Postgres.

    Args:
        binaries: the version to make it for.
        stack_folder: the folder of the stack, where the template is, or will be.
        data: the directory to make; its folder exists.

    Raises:
        CommandFailed: initdb or pg_resetwal failed.
    """
    with _making:
        template = make_template(binaries, stack_folder)
    shutil.rmtree(data, ignore_errors=True)  # of a start that was interrupted
    # pg_resetwal makes a new log, so the template's, two fifths of its size, is not needed.
    shutil.copytree(template, data, symlinks=True, ignore=shutil.ignore_patterns(_WAL_SEGMENT))
    with (data / "global" / "pg_control").open("r+b") as control:
        control.write(os.urandom(_SYSTEM_IDENTIFIER_BYTES))
    give_to(binaries.user, data)
    # By force, since the checksum of the control file is now wrong: that is what it mends.
    binaries.run("pg_resetwal", "--force", "-D", data, folder=data.parent)


def make_template(binaries: PostgresBinaries, stack_folder: Path) -> Path:
    """Make, or find, the data directory that those of a stack are copied from. Returns it.

    Raises:
        CommandFailed: initdb failed.
    """
    folder = stack_folder / f"template-{binaries.version}"
    template, draft = folder / "data", folder / "draft"
    if template.exists():
        return template
    folder.mkdir(exist_ok=True)
    give_to(binaries.user, folder)
    shutil.rmtree(draft, ignore_errors=True)  # of an initdb that was interrupted
    who = ["--username=postgres", "--auth=trust"]
    binaries.run("initdb", "-D", draft, *who, "--encoding=UTF8", "--locale=C", "--no-sync", folder=folder)
    draft.rename(template)
    return template


def give_to(user: User | None, folder: Path) -> None:
    """Make `user` the owner of a folder and of everything in it. Nothing happens when it is None, ourselves."""
    if user is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user.uid, user.gid, follow_symlinks=False)


def release_shared_memory(data: Path) -> None:
    """Remove the shared memory segment that a killed Postgres left in the system, where it would stay until a reboot.

    Args:
        data: the data directory. Its postmaster.pid, which only a killed Postgres leaves behind, names the segment.
    """
    pid_file = data / "postmaster.pid"
    listing = Path("/proc/sysvipc/shm")
    if not pid_file.exists() or not listing.exists():
        return
    key_and_id = pid_file.read_text().splitlines()[6:7]
    existing = [line.split()[:2] for line in listing.read_text().splitlines()]
    # Key and id must both match: an id alone might by now be somebody else's.
    if key_and_id and key_and_id[0].split() in existing:
        ctypes.CDLL(None).shmctl(int(key_and_id[0].split()[1]), _IPC_RMID, None)
