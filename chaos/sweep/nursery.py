"""A process that has the coordinator's libraries loaded, and forks a coordinator whenever it is asked to.

Most of a coordinator's start is Python reading modules, and a sweep starts a thousand of them. A forked one is a
process of its own, with its own threads, files and death, and runs ``coordinator.cli`` from its first line; only the
reading has been done before. So a start costs a tenth.

    python -m chaos.sweep.nursery SOCKET

One line of JSON asks, one answers: ``{"argv", "env", "log", "stand", "each"}`` forks and is answered with the process
id; ``{}`` asks how it is, and is answered with its exit code, or null. A dead child is reaped only when the next one is
asked for: until then its process id is nobody else's. When whoever asked has gone, the nursery ends, and its child.

What differs from ``python -m coordinator`` besides: any process of the same user may trace it (Linux' Yama, where it is
on, allows that only to ancestors, and strace is none here). With ``stand`` it stands still (SIGSTOP) before it does
anything, so that a tracer sees all. With ``each`` the log's checkpoint, due after some thousand pages, is due after
every force, so that three transactions show what two hundred would.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from typing import Any

import coordinator.cli.serving
import coordinator.rpc.server  # noqa: F401 - what takes long to load, before anybody waits for it
from coordinator.cli import main as command
from coordinator.log import writer

_PR_SET_PDEATHSIG, _PR_SET_PTRACER, _ANY = 1, 0x59616D61, -1
_EXIT_DEFECT = 125


def main(path: str) -> None:
    """Serve one client, until it goes."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        connection, _ = listening.accept()
    child = 0
    with connection, connection.makefile("r") as questions:
        for line in questions:
            asked = json.loads(line)
            if asked:
                _reap(child)
                child = _fork(asked)
            answer = child if asked else _exit_code(child)
            connection.sendall(json.dumps(answer).encode() + b"\n")


def _reap(child: int) -> None:
    if child:
        os.waitpid(child, 0)


def _exit_code(child: int) -> int | None:
    """The exit code, negative for a signal, without reaping; None while it runs."""
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _fork(asked: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        try:
            _be_a_coordinator(asked)
        finally:
            os._exit(_EXIT_DEFECT)
    return child


def _be_a_coordinator(asked: dict[str, Any]) -> None:
    """Become what ``python -m coordinator`` would be. Does not return."""
    os.setsid()
    log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    os.environ.clear()
    os.environ.update(asked["env"])
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    libc.prctl(_PR_SET_PTRACER, ctypes.c_long(_ANY), 0, 0, 0)  # fails without harm where there is no Yama
    if asked["each"]:
        writer.CHECKPOINT_PAGES = 1
    sys.argv = ["handfast", *asked["argv"]]
    if asked["stand"]:
        os.kill(os.getpid(), signal.SIGSTOP)
    code = 0
    try:
        command()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
