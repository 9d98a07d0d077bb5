"""The few lines that run in a child before its program: `python -I -S launch.py OWNER SIGNAL USER PROGRAM ARGUMENT…`.

Started by path, with the standard library only, and replaced by the program it launches (same process id).

Why not `preexec_fn`: that runs Python between fork and exec, in a copy of a process whose other threads (gRPC's, ours)
are gone together with the locks they held. It can hang, and Python 3.12 warns of it. A program of our own starts from
nothing, for about 15 ms.

OWNER is the process id of the parent, SIGNAL the number of the signal to get when the parent dies, USER is `uid:gid` or
`-` for no change.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_EXIT_CANNOT_LAUNCH = 127


def main(owner: str, death_signal: str, user: str, program: str, *arguments: str) -> None:
    _become(user)
    _die_with(int(owner), int(death_signal))
    _forget_inherited_signals()
    try:
        os.execvp(program, [program, *arguments])
    except OSError as error:
        print(f"Cannot run {program}: {error.strerror}", file=sys.stderr)
        sys.exit(_EXIT_CANNOT_LAUNCH)


def _become(user: str) -> None:
    if user == "-":
        return
    uid, gid = (int(part) for part in user.split(":"))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _die_with(owner: int, death_signal: int) -> None:
    """Ask the kernel to signal us when the parent dies. After `_become`: a change of user clears this wish."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != owner:  # it died before we could ask
        sys.exit(_EXIT_CANNOT_LAUNCH)


def _forget_inherited_signals() -> None:
    """Python ignores SIGPIPE, a background job of a shell ignores SIGINT; an ignored signal stays so across exec."""
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main(*sys.argv[1:])
