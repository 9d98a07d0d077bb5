"""The thread that makes the log durable: group commit.

The loop's thread appends to a queue and goes on. This thread takes all that is in it, writes it in one transaction, and
while that one's fsync runs, the next batch gathers (DeWitt et al., 1984). So the number of forces follows the disk and
not the load: one transaction alone waits for one fsync, and a thousand together wait for one or two. There is no timer
in that; only end records, which nobody waits for, linger until another force takes them along. While they are few, none
does, for at most ``lazy_flush_s``: the pages that they change would be written, summed and synced while a lone
decision waits for them, and sixteen ends change hardly more pages than one.

A batch goes back to the loop in one hop, however large it is. Per record this costs two operations on the queue and its
share of two ``executemany``. The thread is woken once a batch: what is submitted while it is known to be on its way
(``_urgent``) is only appended, and so is an end record while the thread will look by itself before long
(``_watching``): the end of a lone transaction comes right after its decision was forced, and to wake the thread for it
would cost as much as the decision. None is left behind by that, for the thread takes back the mark first and looks into
the queue afterwards: whoever still saw the mark had appended before. To be woken in vain does no harm.

What can fail, and what is then certain. SQLITE_FULL comes from a write, never from the fsync after it, and SQLite rolls
back: the commit frame did not get into the write-ahead log whole, so no recovery will find it, and the next batch
overwrites what did get in. The thread looks before it says so: had the batch been committed, the chain's head would
have moved. After any other failure, an fsync that failed above all, nobody can know what is on the disk; the thread
then says that the log is broken, and ends.

Checkpoints, which copy the write-ahead log into the file, are made here, after a batch's answers are on their way, and
not by SQLite inside a COMMIT that somebody waits for. They are due when roughly CHECKPOINT_PAGES pages were written, so
the write-ahead log stays at a few megabytes: a completed checkpoint lets the next batch start over at its beginning,
and no reader holds one up, since reads are single statements on one thread. The disk being full does not hurt a
checkpoint: what it could not copy stays in the write-ahead log.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence

from coordinator.log.batches import apply_batch
from coordinator.log.chain import DamagedHead, Head, read_head
from coordinator.log.store import LogBroken, LogRefused
from coordinator.log.submissions import ENDS, Applied, Submission, commits, records_in

logger = logging.getLogger(__name__)

CHECKPOINT_PAGES = 1000
"""About how many pages of 4 KiB may gather in the write-ahead log."""

PAGES_PER_FORCE = 8
"""About how many pages a batch changes at least: the ends of the table and of its indexes, and the chain's head."""

RECORDS_PER_PAGE = 8
"""About how many more records change one more page."""

ENDS_MIN = 16
"""Fewer end records than this hold up no decision."""


class Writer:
    """The writer's thread, seen from the loop's thread.

    Args:
        connection: for this thread alone, until it has ended.
        loop: whose thread runs the callbacks below.
        at_end: calls what it is given at the end of what the loop is doing just now: until then the interpreter's lock
            is taken, and the thread, if it were woken before, would wait again, for that.
        before_force: called in the writer's thread right before each COMMIT with the number of its records; for crash
            tests. What it raises is how the force fails: LogRefused refuses it, anything else breaks the log.
        lazy_flush_s: how long an end record waits for a force to travel with, in seconds.
        head: where the chain of records ends.
        on_forced: told of each batch that is durable.
        on_refused: told of each batch that is certainly not in the log.
        on_broken: told of everything that had been submitted when the log broke. Nothing follows.
        on_stopped: told that everything submitted before ``stop`` is done. Nothing follows.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        loop: asyncio.AbstractEventLoop,
        *,
        at_end: Callable[[Callable[[], None]], None],
        before_force: Callable[[int], None] | None,
        lazy_flush_s: float,
        head: Head,
        on_forced: Callable[[Sequence[Submission], Applied], None],
        on_refused: Callable[[Sequence[Submission], LogRefused], None],
        on_broken: Callable[[Sequence[Submission], LogBroken], None],
        on_stopped: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._at_end = at_end
        self._before_force = before_force
        self._lazy_flush_s = lazy_flush_s
        self._on_forced = on_forced
        self._on_refused = on_refused
        self._on_broken = on_broken
        self._on_stopped = on_stopped

        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._gathered: deque[Submission] = deque()
        self._urgent = False  # something gathered should not wait, and the thread knows
        self._watching = False  # the thread waits no longer than an end record may
        self._stopping = False
        self._left_since_s: float | None = None  # when the oldest end record was first left behind

        self._head = head  # before the current batch
        self._pages_since_checkpoint = 0
        # A daemon, so that a process that failed before it could close the log can still end.
        self._thread = threading.Thread(target=self._run, name="handfast-log-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, submission: Submission) -> None:
        """Give the thread something to write."""
        self._gathered.append(submission)
        if self._urgent:
            return
        if type(submission) not in ENDS:
            self._urgent = True
            self._at_end(self._wake)
        elif len(self._gathered) == 1 and not self._watching:
            self._wake()  # the thread may be waiting without an end; now it has one

    def stop(self) -> None:
        """Have the thread write what was submitted and end."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        self._woken.put(None)

    def join(self) -> None:
        """Wait until the thread has ended, which it does right after its last callback was scheduled."""
        self._thread.join()

    # -- in the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while batch := self._take():
            if not (self._force(batch) and self._checkpoint_when_due(records_in(batch))):
                return
        self._tell(self._on_stopped)

    def _take(self) -> list[Submission]:
        """Wait until something should be forced, and take all there is; nothing when the thread should end."""
        while True:
            while not self._urgent and not self._stopping:
                if self._is_woken(self._lazy_flush_s if self._gathered or self._watching else None):
                    continue
                self._watching = False
                if self._gathered:
                    break
            self._urgent = False
            while not self._woken.empty():
                self._woken.get_nowait()  # it was about what is taken now
            # What the mark stood for may have gone with the batch before, when its submitter was slow to set it.
            if self._gathered or self._stopping:
                self._watching = True
                return self._without_few_ends(self._drained())

    def _is_woken(self, within_s: float | None) -> bool:
        try:
            self._woken.get(timeout=within_s)
        except queue.Empty:
            return False
        return True

    def _drained(self) -> list[Submission]:
        gathered = self._gathered
        return [gathered.popleft() for _ in range(len(gathered))]

    def _without_few_ends(self, batch: list[Submission]) -> list[Submission]:
        """Leave the end records for a later force while they are few and young, and decisions to commit wait."""
        ends = [one for one in batch if type(one) in ENDS and one.callback is None]
        if 0 < len(ends) < len(batch) and not self._stopping and records_in(ends) < ENDS_MIN:
            others = [one for one in batch if commits(one)]
            if len(others) + len(ends) == len(batch) and self._are_young():
                self._gathered.extendleft(reversed(ends))
                return others
        self._left_since_s = None
        return batch

    def _are_young(self) -> bool:
        now_s = self._loop.time()  # perhaps a little old: that of the turn in which the last of them was submitted
        if self._left_since_s is None:
            self._left_since_s = now_s
        return now_s - self._left_since_s < self._lazy_flush_s

    def _force(self, batch: list[Submission]) -> bool:
        """Make a batch durable, or say why not; return whether the log goes on."""
        try:
            applied = self._commit(batch)
        except Exception as error:  # noqa: BLE001 - whatever failed, the log must not go on as if nothing had
            failure = self._judge(error)
            if isinstance(failure, LogBroken):
                self._give_up(batch, failure)
                return False
            self._keep_refused_ends(batch)
            self._pages_since_checkpoint = CHECKPOINT_PAGES  # what can be copied makes room in the write-ahead log
            self._tell(self._on_refused, batch, failure)
        else:
            self._tell(self._on_forced, batch, applied)
        return True

    def _commit(self, batch: list[Submission]) -> Applied:
        self._connection.execute("BEGIN IMMEDIATE")
        applied = apply_batch(self._connection, batch, self._head)
        if self._before_force is not None:
            self._before_force(records_in(batch))
        self._connection.execute("COMMIT")
        self._head = applied.head or self._head
        return applied

    def _judge(self, error: Exception) -> LogRefused | LogBroken:
        """Undo the batch and tell what is certain about it."""
        full = isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
        if not full and not isinstance(error, LogRefused):
            return LogBroken(f"the decision log failed: {type(error).__name__}: {error}")
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if read_head(self._connection) != self._head:
                return LogBroken(f"the decision log reported a failure ({error}) and kept the records nevertheless")
        except (sqlite3.Error, DamagedHead) as second:
            return LogBroken(f"the decision log failed: {error}; then, when rolling back: {second}")
        return LogRefused(f"the decision log took nothing: {error}")

    def _give_up(self, batch: list[Submission], broken: LogBroken) -> None:
        """Report to everyone who waits. The connection is closed first, while the reader is open: so it makes no
        checkpoint, and leaves the files as they are for the next life to recover."""
        lost = [*batch, *self._drained()]
        try:
            self._connection.close()
        except sqlite3.Error:
            logger.exception("closing the broken decision log failed too")
        self._tell(self._on_broken, lost, broken)

    def _keep_refused_ends(self, batch: Sequence[Submission]) -> None:
        """Nobody will offer these again, and without them their transactions would never be forgotten."""
        kept = [one for one in batch if type(one) in ENDS and one.callback is None]
        if self._stopping and kept:
            logger.warning("%d end records were refused; recovery will write them again", records_in(kept))
        elif kept:
            self._gathered.extendleft(reversed(kept))
            self._left_since_s = -math.inf  # they have waited long enough

    def _checkpoint_when_due(self, records: int) -> bool:
        """Move what gathered in the write-ahead log into the file now and then; return whether the log goes on."""
        self._pages_since_checkpoint += PAGES_PER_FORCE + records // RECORDS_PER_PAGE
        if self._pages_since_checkpoint < CHECKPOINT_PAGES:
            return True
        self._pages_since_checkpoint = 0
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_FULL:
                self._give_up([], LogBroken(f"the decision log's checkpoint failed: {error}"))
                return False
            logger.warning("the decision log's disk is full: its write-ahead log can't be copied into it")
        return True

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            logger.warning("the event loop ended before the decision log was closed; %s is not told", callback)
