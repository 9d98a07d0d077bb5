"""strace: where the program comes from, how it is told to strike, and what its output says.

``--inject=CALL:FAULT:when=N`` strikes at the Nth call of that kind of one thread; with ``-P FILE`` only calls on that
file count. Both kinds of fault happen instead of the call: SIGKILL comes before the kernel has done anything, and an
error is returned without trying. For a death right after a call, the call's return is held up (``delay_exit``), which
strace says at once, and the process is killed from outside meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.stack import MissingSoftware
from chaos.toxiproxy.binary import tools_folder

WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
FORCES = ("fsync", "fdatasync", "sync_file_range")
SIZES = ("ftruncate", "truncate", "fallocate")
NAMES = ("unlink", "unlinkat", "rename", "renameat", "renameat2")
CALLS = (*WRITES, *FORCES, *SIZES, *NAMES)
"""Every call by which a file's content, length or name changes, or becomes durable."""

PACKAGES = ("strace", "libunwind8")
_FETCH_S_MAX = 120.0
_TRY_S_MAX = 10.0

_CALL = re.compile(r"(?P<tid>\d+)\s+(?P<name>[a-z0-9_]+)\((?P<rest>.*)")
_RESUMED = re.compile(r"(?P<tid>\d+)\s+<\.\.\. (?P<name>[a-z0-9_]+) resumed>(?P<rest>.*)")
_FILE = re.compile(r"\d+<(?P<file>[^>]*)>")
_MARK = re.compile(r"\((?P<mark>INJECTED|DELAYED)\)\s*$")

Tell = Callable[[str], None]


# -- the program -------------------------------------------------------------------------------------------------------


def find_strace(*, tools: Path | None = None, tell: Tell = lambda words: None) -> tuple[str, ...]:
    """Find strace: on PATH, in the tools folder, or else in Debian's packages, which are unpacked there without root.

    Args:
        tools: the tools folder; ``.tools`` in a checkout.
        tell: is told, in a sentence, when something takes long.

    Returns:
        The beginning of its command line.

    Raises:
        MissingSoftware: it is nowhere, or may not trace; the message says what to do.
    """
    folder = (tools or tools_folder()) / "strace"
    if on_path := shutil.which("strace"):
        return _tried((on_path,))
    if not (folder / "usr/bin/strace").exists():
        _fetch(folder, tell)
    return _tried(_unpacked(folder))


def _unpacked(folder: Path) -> tuple[str, ...]:
    """The program out of a folder, with the library it came with; what it traces gets that library's path not."""
    libraries = {str(found.parent) for found in folder.rglob("libunwind*.so.*")}
    path = f"LD_LIBRARY_PATH={os.pathsep.join(sorted(libraries))}"
    return ("env", path, str(folder / "usr/bin/strace"), "-E", "LD_LIBRARY_PATH")


def _fetch(folder: Path, tell: Tell) -> None:
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or dpkg is None:
        raise MissingSoftware(_how_to_get_it("and this is no Debian or Ubuntu, whose package could be unpacked"))
    tell(f"Fetching strace into {folder} (Debian's packages {' and '.join(PACKAGES)}; no root needed)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".fetching-strace").open("w") as fetching:
        fcntl.flock(fetching, fcntl.LOCK_EX)
        with tempfile.TemporaryDirectory(dir=folder.parent) as draft:
            _run([apt, "download", *PACKAGES], Path(draft))
            for package in sorted(Path(draft).glob("*.deb")):
                _run([dpkg, "-x", str(package), str(folder)], Path(draft))


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_S_MAX, check=False)
    except subprocess.TimeoutExpired:
        raise MissingSoftware(_how_to_get_it(f"and {command[0]} took more than {_FETCH_S_MAX:g} s")) from None
    if done.returncode != 0:
        raise MissingSoftware(_how_to_get_it(f"and {' '.join(command)} failed:\n{done.stderr.strip()}\n"))


def _tried(program: tuple[str, ...]) -> tuple[str, ...]:
    """The same, once it has traced something."""
    command = [*program, "-f", "-o", os.devnull, "-e", "trace=none", sys.executable, "-I", "-S", "-c", ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TRY_S_MAX, check=False)
    if done.returncode != 0:
        raise MissingSoftware(
            f"strace is here and may not trace: {done.stderr.strip()}\n"
            "In a container, allow it with: docker run --cap-add=SYS_PTRACE"
        )
    return program


def _how_to_get_it(why: str) -> str:
    return (
        f"The crash sweep needs Linux and the program strace, which is not on PATH, {why}.\n"
        "Install it: apt-get install strace   (dnf install strace, apk add strace)\n"
        "A sweep of the planned crashes alone needs none: python -m chaos.sweep --only planned"
    )


# -- its options -------------------------------------------------------------------------------------------------------


def log_files(log: Path) -> tuple[Path, ...]:
    """The files whose calls count: the log, what SQLite puts beside it, its lock, and the folder that lists them."""
    beside = [log.with_name(log.name + suffix) for suffix in ("", "-wal", "-shm", "-journal", ".lock")]
    return (*beside, log.parent)


def options(log: Path, output: Path, injection: str) -> list[str]:
    """What to tell strace.

    Args:
        log: the decision log.
        output: where it writes.
        injection: as ``fdatasync:signal=KILL:when=3``; empty to count only.
    """
    wanted = ",".join(f"?{call}" for call in CALLS)  # a kind of call that this machine does not have is no error
    paths = [part for file in log_files(log) for part in ("-P", str(file))]
    inject = [f"--inject={injection}"] if injection else []
    return ["-f", "-y", "-q", "-o", str(output), "-e", f"trace={wanted}", *paths, *inject]


# -- its output --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TracedCall:
    """A call that was seen.

    Args:
        thread: which thread made it.
        name: what was called.
        text: its arguments, as strace shows them.
        mark: ``INJECTED`` when it failed by order, ``DELAYED`` when its return is held up; else empty.
    """

    thread: int
    name: str
    text: str
    mark: str = ""

    @property
    def file(self) -> str:
        """On which file it was made; empty when it names one instead of an open one."""
        found = _FILE.match(self.text)
        return found["file"] if found else ""


def parse(output: str) -> list[TracedCall]:
    """The calls in strace's output, in the order of their beginnings. A last line that is not whole does not count."""
    calls: list[TracedCall] = []
    under_way: dict[tuple[int, str], int] = {}
    for line in output.splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        if begun := _CALL.match(line):
            thread, name = int(begun["tid"]), begun["name"]
            under_way[thread, name] = len(calls)
            calls.append(TracedCall(thread, name, begun["rest"].strip(), _mark(line)))
        elif resumed := _RESUMED.match(line):
            place = under_way.get((int(resumed["tid"]), resumed["name"]))
            if place is not None and (mark := _mark(line)):
                calls[place] = TracedCall(calls[place].thread, calls[place].name, calls[place].text, mark)
    return calls


def _mark(line: str) -> str:
    found = _MARK.search(line)
    return found["mark"] if found else ""


def struck(calls: Sequence[TracedCall]) -> TracedCall | None:
    """The call at which an error or a delay was injected; None when none was. (A kill leaves no mark.)"""
    return next((call for call in calls if call.mark), None)


def counted(calls: Sequence[TracedCall]) -> Counter[str]:
    """How often the busiest thread made each kind of call: the numbers at which ``when=N`` can strike."""
    by_thread = Counter((call.thread, call.name) for call in calls)
    most: Counter[str] = Counter()
    for (_, name), number in by_thread.items():
        most[name] = max(most[name], number)
    return most


def read(output: Path) -> list[TracedCall]:
    """What strace has written so far."""
    return parse(output.read_text(errors="replace")) if output.exists() else []
