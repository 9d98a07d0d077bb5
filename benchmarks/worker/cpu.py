"""CPU time, of this process and of others."""

from __future__ import annotations

import time
from collections.abc import Mapping

import psutil


def cpu_seconds(watch: Mapping[str, int]) -> dict[str, float]:
    """The CPU time that processes have used so far, in user and system mode, in seconds; ours is ``client``.

    Args:
        watch: process ids by name; one whose name begins with ``postgres`` counts with its children, dead ones too.
    """
    used = {name: _used(psutil.Process(pid), with_children=name.startswith("postgres")) for name, pid in watch.items()}
    return {"client": time.process_time(), **used}


def _used(process: psutil.Process, *, with_children: bool) -> float:
    times = process.cpu_times()
    used: float = times.user + times.system
    if not with_children:
        return used
    used += times.children_user + times.children_system
    for child in process.children(recursive=True):
        try:
            own = child.cpu_times()
        except psutil.NoSuchProcess:
            continue  # it ended this moment, and counts with its parent the next time
        used += own.user + own.system
    return used
