"""Starting children so that they end when we do, also when we are killed with SIGKILL.

Linux sends a child the signal it asked for (PR_SET_PDEATHSIG) when its parent dies. "Parent" means the *thread* that
started it: a child started on a worker thread, as with `asyncio.to_thread`, would be killed as soon as that worker
ends. So all children are started by one thread of our own that lives as long as the process does. It is a daemon,
for Python ends other threads before it runs exit handlers, and those still need their children.

Other systems have no such wish; there, children of a parent killed with SIGKILL stay.
"""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import IO

_LAUNCHER = Path(__file__).with_name("launch.py")

Child = subprocess.Popen[bytes]


@dataclass(frozen=True)
class User:
    """Whom a child runs as."""

    uid: int
    gid: int


def launch_line(argv: Sequence[str], death_signal: Signals, user: User | None) -> list[str]:
    """The command that runs `argv` as `user`, tied to the life of this process."""
    who = f"{user.uid}:{user.gid}" if user else "-"
    return [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(int(death_signal)), who, *argv]


def popen(line: Sequence[str], env: Mapping[str, str], cwd: Path | None, log: IO[bytes]) -> Child:
    """Start a child in a session of its own, so that the terminal's Ctrl-C reaches only us, who end it in order."""
    return subprocess.Popen(
        line,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def submit(start: Callable[[], Child], child: "Future[Child]") -> None:
    """Have `start` called on the thread that owns all children.

    Args:
        start: starts one child.
        child: receives it, or the error. The caller keeps this before it calls, so that an interrupt at any moment
            leaves a way to find what was started; cancelling it in time means that nothing is.
    """
    global _thread
    with _lock:
        if _thread is None or not _thread.is_alive():  # also after a fork, which copies no threads
            _thread = threading.Thread(target=_serve, name="stack-spawn", daemon=True)
            _thread.start()
    _requests.put((start, child))


def _serve() -> None:
    while True:
        start, child = _requests.get()
        if not child.set_running_or_notify_cancel():
            continue
        try:
            child.set_result(start())
        except BaseException as error:  # noqa: BLE001 - whoever waits for the child gets it
            child.set_exception(error)


_lock = threading.Lock()
_thread: threading.Thread | None = None
_requests: "queue.SimpleQueue[tuple[Callable[[], Child], Future[Child]]]" = queue.SimpleQueue()
