"""The coordinator's command as the sweep starts it: ``python -m chaos.sweep.traceable serve …``.

Two things differ from ``python -m coordinator``. Any process of the same user may trace it (Linux' Yama, where it is
on, allows that only to ancestors, and strace is none here). And with HANDFAST_SWEEP_CHECKPOINTS=each, the log's
checkpoint, which is due after some thousand pages, is due after every force, so that two transactions show what two
hundred would.
"""

import ctypes
import os
import sys

from coordinator.cli import main
from coordinator.log import writer

CHECKPOINTS = "HANDFAST_SWEEP_CHECKPOINTS"
EACH = "each"
_PR_SET_PTRACER, _ANY = 0x59616D61, -1


def become_traceable() -> None:
    """Let any process of this user attach. Fails without harm where Yama is not there."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_long(_ANY), 0, 0, 0)


if __name__ == "__main__":
    become_traceable()
    if os.environ.get(CHECKPOINTS) == EACH:
        writer.CHECKPOINT_PAGES = 1
    sys.exit(main())
