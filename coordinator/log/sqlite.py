"""The decision log on SQLite: WAL, synchronous=FULL, one writer thread, one lock.

The work is divided among modules of one idea each: ``files`` opens (with ``locking``, ``schema`` and ``identity``),
``writer`` forces, ``batches`` says what a force writes, ``rows`` how it is spelled, and ``submitting`` what the loop's
thread does before and after. What is left here is to tie them together, and to read.

Reads go through a connection of their own on the loop's thread. It sees what is durable and nothing else (``files``
says why), it never waits for the writer, and a lookup takes some 20 µs; an index in memory would take less, but would
have to be kept equal to the file, and would grow with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from coordinator.log.files import OpenLog, naming_damage, open_files
from coordinator.log.records import (
    CommitRows,
    EndRows,
    Identity,
    LoggedTransaction,
    ParticipantRecord,
    ResolutionRecord,
)
from coordinator.log.rows import (
    FORGOTTEN,
    PARTICIPANT_COLUMNS,
    RESOLUTION_COLUMNS,
    STORED_COLUMNS,
    commit_rows,
    end_rows,
    read_participant,
    read_resolution,
    read_transaction,
)
from coordinator.log.store import LogBroken, LogRefused, OnAllDecided
from coordinator.log.submissions import DecideAll, EndAll, Submission
from coordinator.log.submitting import LAZY_FLUSH_S, SubmittingLog
from coordinator.log.writer import Writer
from coordinator.protocol.states import Decision

SELECT_ONE = f"SELECT {STORED_COLUMNS} FROM decision WHERE gtrid = ? AND outcome IS NOT '{FORGOTTEN}'"
SELECT_UNENDED = f"SELECT {STORED_COLUMNS} FROM decision WHERE ended_unix_ms IS NULL ORDER BY seq"
SELECT_RECENT = f"""
    SELECT {STORED_COLUMNS} FROM decision WHERE decided_unix_ms >= ? AND outcome IS NOT '{FORGOTTEN}'
    ORDER BY seq DESC LIMIT ?
"""
SELECT_RECENT_BEFORE = SELECT_RECENT.replace("ORDER", "AND seq < (SELECT seq FROM decision WHERE gtrid = ?) ORDER")
_SELECT_FORGOTTEN = f"SELECT 1 FROM decision WHERE gtrid = ? AND outcome = '{FORGOTTEN}'"
_SELECT_LIFE = "SELECT started_unix_ms FROM life WHERE epoch = ?"
_SELECT_PARTICIPANTS = f"SELECT {PARTICIPANT_COLUMNS} FROM participant ORDER BY resource, registered_unix_ms DESC"
_SELECT_RESOLUTIONS = f"SELECT {RESOLUTION_COLUMNS} FROM resolution WHERE gtrid = ? ORDER BY seq"


Record = TypeVar("Record")


class SqliteLog(SubmittingLog):
    """A LogStore in a file.

    Args:
        path: the file; created when it does not exist. Beside it appear ``-wal``, ``-shm`` and ``.lock``.
        make_coordinator_id: asked when the log is new; eight characters of ``handfast.xid.ID_ALPHABET``.
        on_broken: called once, on the loop's thread, when the log must no longer be used: stop the process.
        unix_ms: where the time comes from, in milliseconds since 1970.
        expected_coordinator_id: whose log this must be; None accepts any. With it, no log is created.
        before_force: called in the writer's thread right before each COMMIT with the number of its records; for crash
            tests. What it raises is how the force fails: LogRefused refuses it, anything else breaks the log.
        lazy_flush_s: how long an end record waits for a force to travel with, in seconds.
        around: entered while the callbacks of a batch are run, for whoever handles together what comes of them.
        at_end: calls what it is given at the end of what the loop is doing just now, or at once.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        make_coordinator_id: Callable[[], str],
        on_broken: Callable[[LogBroken], None],
        unix_ms: Callable[[], int],
        expected_coordinator_id: str | None = None,
        before_force: Callable[[int], None] | None = None,
        lazy_flush_s: float = LAZY_FLUSH_S,
        around: AbstractContextManager[object] | None = None,
        at_end: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        super().__init__(on_broken, around)
        self._path = Path(path).resolve()
        self._make_coordinator_id = make_coordinator_id
        self._unix_ms = unix_ms
        self._expected_coordinator_id = expected_coordinator_id
        self._before_force = before_force
        self._lazy_flush_s = lazy_flush_s
        self._at_end = at_end or _at_once
        self._files: OpenLog | None = None
        self._writer: Writer | None = None
        self._writer_ended = asyncio.Event()
        self._running_loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> Identity:
        """See LogStore; fails with RuntimeError when it is open."""
        if self._files is not None:
            raise RuntimeError("the log is open already")
        self._running_loop = asyncio.get_running_loop()
        self._files = await asyncio.to_thread(
            open_files,
            self._path,
            make_coordinator_id=self._make_coordinator_id,
            unix_ms=self._unix_ms,
            expected_coordinator_id=self._expected_coordinator_id,
        )
        self._horizon_unix_ms = self._files.life.horizon_unix_ms
        self._reset_counts()
        self._writer_ended = asyncio.Event()
        self._writer = Writer(
            self._files.writer,
            self._running_loop,
            at_end=self._at_end,
            before_force=self._before_force,
            lazy_flush_s=self._lazy_flush_s,
            head=self._files.head,
            on_forced=self._deliver,
            on_refused=self._deliver_failure,
            on_broken=self._on_writer_broken,
            on_stopped=self._writer_ended.set,
        )
        self._writer.start()
        self._broken = None
        return self._files.life.identity

    async def close(self) -> None:
        """See LogStore."""
        files, writer = self._files, self._writer
        if files is None or writer is None:
            return
        if self._broken is None:
            self._broken = LogBroken("the decision log is closed")
            writer.stop()
        await self._writer_ended.wait()
        if self._files is files:  # of several calls to close, the first to come here
            self._files = self._writer = None
            await asyncio.to_thread(_release, files, writer)

    # -- writes --------------------------------------------------------------------------------------------------

    def decide_all(self, records: CommitRows, on_decided: OnAllDecided) -> None:
        """See LogStore; all of them go into the same force."""
        count = len(records.gtrids)

        def on_answer(answer: Sequence[Decision] | LogRefused | LogBroken) -> None:
            on_decided([answer] * count if isinstance(answer, LogRefused | LogBroken) else answer)

        self._offer(DecideAll(records, commit_rows(records), on_answer))

    def end_all(self, records: EndRows) -> None:
        """See LogStore."""
        self._offer(EndAll(records, end_rows(records)))

    def _submit(self, submission: Submission) -> None:
        writer = self._writer
        if writer is None:
            raise RuntimeError("the log is not open")
        writer.submit(submission)

    def _on_writer_broken(self, lost: Sequence[Submission], broken: LogBroken) -> None:
        self._broken = broken
        self._writer_ended.set()
        self._deliver_failure(lost, broken)
        self._break(broken)

    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._running_loop or asyncio.get_running_loop()

    # -- reads ---------------------------------------------------------------------------------------------------

    def lookup(self, gtrid: str) -> LoggedTransaction | None:
        """See LogStore."""
        found = self._read(SELECT_ONE, (gtrid,), read_transaction, gtrid)
        return found[0] if found else None

    def unended(self) -> Sequence[LoggedTransaction]:
        """See LogStore."""
        return self._read(SELECT_UNENDED, (), read_transaction)

    def recent(self, limit: int, since_unix_ms: int = 0, before: str = "") -> Sequence[LoggedTransaction]:
        """See LogStore."""
        if before:
            return self._read(SELECT_RECENT_BEFORE, (since_unix_ms, before, limit or -1), read_transaction)
        return self._read(SELECT_RECENT, (since_unix_ms, limit or -1), read_transaction)

    def was_forgotten(self, gtrid: str) -> bool:
        """See LogStore."""
        return self._read(_SELECT_FORGOTTEN, (gtrid,), tuple, gtrid) != []

    def life_started_unix_ms(self, epoch: int) -> int | None:
        """See LogStore."""
        rows = self._read(_SELECT_LIFE, (epoch,), tuple)
        return rows[0][0] if rows else None

    def participants(self) -> Sequence[ParticipantRecord]:
        """See LogStore."""
        return self._read(_SELECT_PARTICIPANTS, (), read_participant)

    def resolutions(self, gtrid: str) -> Sequence[ResolutionRecord]:
        """See LogStore."""
        return self._read(_SELECT_RESOLUTIONS, (gtrid,), read_resolution, gtrid)

    def _read(
        self, select: str, values: tuple[object, ...], spell: Callable[[Any], Record], gtrid: str = ""
    ) -> list[Record]:
        self._check_readable()
        if self._files is None:
            raise LogBroken("the decision log is not open")
        with naming_damage(str(self._path), gtrid):
            # All of it at once: a statement that is left half-read would keep the write-ahead log from starting over.
            return [spell(row) for row in self._files.reader.execute(select, values).fetchall()]

    @property
    def path(self) -> str:
        """See LogStore."""
        return str(self._path)


def _at_once(call: Callable[[], None]) -> None:
    call()


def _release(files: OpenLog, writer: Writer) -> None:
    writer.join()
    files.close()
