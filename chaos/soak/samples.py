"""Looking at every process from outside, every few seconds.

Memory is what a process would free by ending (unique set size): what Postgres' sessions share counts for nobody. A
server's figures are those of all its processes together. What can't be seen at a moment, for a process is down or a
server stands still, is missing at that moment.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg

from chaos.bank_stack import DATABASE, BankStack
from chaos.soak.flatness import Measure

LAB = "lab"
_MIB, _KIB = 1024 * 1024, 1024
_CONNECT_S_MAX = 2
_STATEMENT_MS_MAX = 2000
_LEAVE_S_MAX = 30.0
_SESSIONS = """
    SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
           (SELECT count(*) FROM pg_prepared_xacts)
"""

Key = tuple[str, Measure]
"""A process and a measure."""


class Sampler:
    """Looks, on a thread of its own, from ``start`` to ``stop``.

    Args:
        bank: at what.
        now_s: the run's clock.
        interval_s: the time between two looks, in seconds.
    """

    def __init__(self, bank: BankStack, now_s: Callable[[], float], interval_s: float) -> None:
        self.seen: dict[Key, list[tuple[float, float]]] = defaultdict(list)
        self._bank = bank
        self._now_s = now_s
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak-sampler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the look that is under way."""
        self._stopping.set()
        self._thread.join(_LEAVE_S_MAX)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            for process, measure, value in look(self._bank):
                self.seen[process, measure].append((self._now_s(), value))


def look(bank: BankStack) -> Iterator[tuple[str, Measure, float]]:
    """Look once: process, measure, value."""
    python = [bank.coordinator, *bank.services.values()]
    for managed in python:
        if managed.alive and not managed.paused:
            yield from _of(managed.name, _family(managed.pid, children=False))
    for service, cluster in bank.databases.items():
        if cluster.alive and not cluster.process.paused:
            name = f"postgres-{service}"
            yield from _of(name, _family(cluster.process.pid, children=True))
            yield from _asked(name, cluster.dsn(DATABASE))
    yield "coordinator", Measure.LOG_KIB, log_bytes(bank.log) / _KIB


def log_bytes(log: Path) -> int:
    """How large the decision log is, its write-ahead log included."""
    sizes = 0
    for file in (log, log.with_name(log.name + "-wal")):
        with suppress(FileNotFoundError):
            sizes += file.stat().st_size
    return sizes


def _family(pid: int, *, children: bool) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *(process.children(recursive=True) if children else [])]
    return []


def _of(name: str, processes: Sequence[psutil.Process]) -> Iterator[tuple[str, Measure, float]]:
    """Memory, descriptors and threads of processes that may end at any moment."""
    memory = descriptors = threads = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
            memory += process.memory_full_info().uss
            descriptors += process.num_fds()
            threads += process.num_threads()
    if memory:
        yield name, Measure.MEMORY_MIB, memory / _MIB
        yield name, Measure.DESCRIPTORS, descriptors
        yield name, Measure.THREADS, threads


def _asked(name: str, dsn: str) -> Iterator[tuple[str, Measure, float]]:
    """What a server says of itself, when it answers."""
    options = f"-c statement_timeout={_STATEMENT_MS_MAX}"
    with suppress(psycopg.Error):
        with psycopg.connect(dsn, autocommit=True, connect_timeout=_CONNECT_S_MAX, options=options) as connection:
            row = connection.execute(_SESSIONS).fetchone()
        if row is not None:
            yield name, Measure.SESSIONS, row[0]
            yield name, Measure.PREPARED, row[1]
