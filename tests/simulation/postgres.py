"""A model of one Postgres server: transactions, row locks, prepared transactions, transaction ids, and crashes.

It knows as much of Postgres as participant.postgres asks of it, which runs unchanged on top (``psycopg_model`` has the
connections). What matters for two-phase commit is modelled as it is: a prepared transaction survives everything and
keeps its locks; 42704 is the answer for a prepared transaction that is gone, however it went; a failed transaction
answers PREPARE TRANSACTION with the tag ROLLBACK; ids that no durable transaction had are given out again after a
crash; max_prepared_transactions runs out; a lock is waited for until lock_timeout.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors

from tests.simulation import injectors
from tests.simulation.faults import ByHand, StatementFault

if TYPE_CHECKING:
    from tests.simulation.loop import ProcessLoop
    from tests.simulation.world import World

Done = Callable[[Any], None]
"""Told the result of a statement: a value, or a psycopg.Error."""

FIRST_XID = 1000
STATEMENT_S_MIN, STATEMENT_S_MAX = 0.0001, 0.002


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction of the server.

    Args:
        mark: the gid that the branch's settings say; empty outside a branch.
        lock_timeout_s: how long it waits for a lock.
        idle_timeout_s: how long its session may be idle.
        xid: its id, once it has changed something.
        changes: what it adds to rows.
        failed: whether a statement of it has failed.
        prepared_at_s: since when it is prepared.
    """

    mark: str
    lock_timeout_s: float
    idle_timeout_s: float
    xid: int | None = None
    changes: dict[str, int] = field(default_factory=dict)
    failed: bool = False
    prepared_at_s: float = 0.0


@dataclass(slots=True, eq=False)
class Session:
    """The server's side of one connection.

    Args:
        loop: the client process.
        on_broken: told, in the client, that the connection is gone.
        pid: its process's number.
        transaction: the open one.
        alive: whether the connection holds.
        active_at_s: when it last did something.
    """

    loop: ProcessLoop
    on_broken: Callable[[], None]
    pid: int
    transaction: Transaction | None = None
    alive: bool = True
    active_at_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Waiting:
    """A statement that waits for a row's lock."""

    session: Session
    transaction: Transaction
    granted: Callable[[], None]
    refused: Callable[[psycopg.Error], None]
    over: bool = False


class Database:
    """One server.

    Args:
        world: where it is.
        name: the resource.
        balances: what its rows hold at first.
        slots: max_prepared_transactions.
    """

    def __init__(self, world: World, name: str, balances: dict[str, int], slots: int) -> None:
        self.world = world
        self.name = name
        self.up = True
        self.rows = dict(balances)
        self.slots = slots
        self.prepared: dict[str, Transaction] = {}
        self.statuses: dict[int, str] = {}
        self.next_xid = FIRST_XID
        self.xid_prepared_max = FIRST_XID - 1  # PREPARE is in the log by then, whatever became of it since
        self.life = 1
        self.sessions: list[Session] = []
        self.counts: Counter[str] = Counter()
        self.faults: dict[tuple[str, int], StatementFault] = {}
        self.meddlers: dict[int, ByHand] = {}
        self._owners: dict[str, Transaction] = {}
        self._waiting: dict[str, deque[_Waiting]] = {}

    @property
    def locked_rows(self) -> list[str]:
        """The rows that somebody holds."""
        return sorted(self._owners)

    # -- sessions --------------------------------------------------------------------------------------------------

    def connect(self, loop: ProcessLoop, on_broken: Callable[[], None]) -> Session | None:
        """Take a connection; None while the server is down."""
        if not self.up:
            return None
        self.counts["connected"] += 1
        session = Session(loop, on_broken, self.counts["connected"], active_at_s=self.world.now_s)
        self.sessions.append(session)
        return session

    def submit(self, session: Session, kind: str, perform: Callable[[Done], None], done: Done) -> None:
        """Take a statement from a client: it arrives a little later, and its answer later still."""
        self.counts[kind] += 1
        fault = self.faults.get((kind, self.counts[kind]))
        effect = fault.effect if fault is not None else ""
        delay_s = self.world.random.uniform(STATEMENT_S_MIN, STATEMENT_S_MAX)
        if fault is not None:
            self.world.count_fault(fault, f"{self.name}: {effect} at {kind} {fault.number}")
            delay_s += fault.delay_s if effect == "slow" else 0.0

        def answer(result: Any) -> None:
            if effect == "crash after" and self.up:
                self._crash_for(fault)
            elif session.alive:
                session.active_at_s = self.world.now_s
                back_s = self.world.random.uniform(STATEMENT_S_MIN, STATEMENT_S_MAX)
                if effect == "break after":
                    self.world.later(back_s, self.end_session, session)
                else:
                    session.loop.call_later(back_s, done, result)

        def arrive() -> None:
            if not session.alive:
                return
            session.active_at_s = self.world.now_s
            if effect == "break before":
                self.end_session(session)
            elif effect == "crash before":
                self._crash_for(fault)
            elif effect == "error":
                self._fail(session)
                answer(errors.SerializationFailure("could not serialize access"))
            else:
                perform(answer)

        self.world.later(delay_s, arrive)

    def end_session(self, session: Session) -> None:
        """The connection is gone: what is open in it rolls back, and the client hears of it."""
        if not session.alive:
            return
        session.alive = False
        self.sessions.remove(session)
        if session.transaction is not None:
            self._abort(session.transaction)
            session.transaction = None
        if session.loop.alive:
            session.loop.call_soon(session.on_broken)

    def on_process_gone(self, loop: ProcessLoop) -> None:
        """A client process died; the server notices soon."""
        for session in self.sessions:
            if session.loop is loop:
                self.world.later(self.world.random.uniform(0.001, 1.0), self.end_session, session)

    # -- the server's life -----------------------------------------------------------------------------------------

    def crash(self) -> None:
        """Die at once: open transactions are lost, prepared ones are not."""
        self.up = False
        self.world.trace(self.name, "the database dies; prepared: %s", ", ".join(self.prepared) or "none")
        for session in list(self.sessions):
            self.end_session(session)
        durable = [xid for xid, status in self.statuses.items() if status == "committed"]
        durable += [transaction.xid for transaction in self.prepared.values() if transaction.xid is not None]
        self.next_xid = max([self.xid_prepared_max, *durable]) + 1
        self.statuses = {xid: status for xid, status in self.statuses.items() if xid < self.next_xid}

    def start(self) -> None:
        """Come back."""
        if not self.up:
            self.up = True
            self.life += 1
            self.world.trace(self.name, "the database is back")

    def _crash_for(self, fault: StatementFault | None) -> None:
        self.crash()
        self.world.later(fault.delay_s if fault is not None else 0.0, self.start)

    # -- statements ------------------------------------------------------------------------------------------------

    def begin(self, session: Session, mark: str, lock_timeout_s: float, idle_timeout_s: float, done: Done) -> None:
        """BEGIN, with a branch's settings."""
        session.transaction = Transaction(mark, lock_timeout_s, idle_timeout_s)
        self.world.later(idle_timeout_s, self._end_if_idle, session, session.transaction)
        done("BEGIN")

    def standing(self, session: Session, done: Done) -> None:
        """pg_current_xact_id_if_assigned, the mark, synchronous_commit, the server's life."""
        transaction = session.transaction
        if transaction is None:
            done((None, "", "on", str(self.life)))
        elif transaction.failed:
            done(errors.InFailedSqlTransaction("current transaction is aborted"))
        else:
            xid8 = None if transaction.xid is None else str(transaction.xid)
            done((xid8, transaction.mark, "on", str(self.life)))

    def update(self, session: Session, row: str, amount: int, done: Done) -> None:
        """Add to a row, whose balance may not fall below 0. An amount of 0 only reads."""
        transaction = session.transaction
        if transaction is None or transaction.failed:
            done(errors.InFailedSqlTransaction("current transaction is aborted"))
        elif amount == 0:
            done("SELECT 1")
        else:
            self._lock(session, transaction, row, lambda: self._change(session, transaction, row, amount, done), done)

    def _change(self, session: Session, transaction: Transaction, row: str, amount: int, done: Done) -> None:
        if self.rows[row] + transaction.changes.get(row, 0) + amount < 0:
            transaction.failed = True
            done(errors.CheckViolation("new row violates check constraint balance_not_negative"))
            return
        if transaction.xid is None:
            self._assign(transaction)
            self.world.observe.branch_changed(self.name, transaction.mark)
        transaction.changes[row] = transaction.changes.get(row, 0) + amount
        done("UPDATE 1")

    def _assign(self, transaction: Transaction) -> None:
        transaction.xid = self.next_xid
        self.statuses[self.next_xid] = "in progress"
        self.next_xid += 1

    def prepare(self, session: Session, gid: str, done: Done) -> None:
        """PREPARE TRANSACTION."""
        transaction = session.transaction
        if transaction is None or transaction.failed:
            self._close(session, commit=False)
            done("ROLLBACK")
        elif len(self.prepared) >= self.slots:
            self._close(session, commit=False)
            done(errors.OutOfMemory("maximum number of prepared transactions reached"))
        elif gid in self.prepared:
            self._close(session, commit=False)
            done(errors.DuplicateObject(f"transaction identifier {gid} is already in use"))
        else:
            session.transaction = None
            transaction.prepared_at_s = self.world.now_s
            self.prepared[gid] = transaction
            self.xid_prepared_max = max(self.xid_prepared_max, transaction.xid or 0)
            self.world.trace(self.name, "prepared %s", gid)
            self.world.observe.branch_prepared(self.name, gid)
            self.counts["prepared"] += 1
            injectors.on_prepared(self.world, self.name, self.counts["prepared"], gid)
            done("PREPARE TRANSACTION")

    def ask_and_prepare(self, session: Session, gid: str, done: Done) -> None:
        """The questions of ``standing``, and PREPARE TRANSACTION in the same message: not run when they fail.

        One that is prepared without having changed anything gets its id then.
        """
        asked: list[Any] = []
        self.standing(session, asked.append)
        (row,) = asked
        if isinstance(row, psycopg.Error):
            done(row)
            return
        if session.transaction is not None and session.transaction.xid is None:
            self._assign(session.transaction)
        self.prepare(session, gid, lambda tag: done(tag if isinstance(tag, psycopg.Error) else (row[:3], tag)))

    def end_open(self, session: Session, *, commit: bool, done: Done) -> None:
        """COMMIT or ROLLBACK."""
        committed = commit and session.transaction is not None and not session.transaction.failed
        self._close(session, commit=committed)
        done("COMMIT" if committed else "ROLLBACK")

    def end_prepared(self, gid: str, *, commit: bool, done: Done) -> None:
        """COMMIT PREPARED or ROLLBACK PREPARED."""
        transaction = self.prepared.pop(gid, None)
        if transaction is None:
            done(errors.UndefinedObject(f'prepared transaction with identifier "{gid}" does not exist'))
            return
        self.world.trace(self.name, "%s %s", "COMMIT PREPARED" if commit else "ROLLBACK PREPARED", gid)
        (self._commit if commit else self._abort)(transaction)
        done("COMMIT PREPARED" if commit else "ROLLBACK PREPARED")

    def status(self, xid8: int, done: Done) -> None:
        """pg_xact_status."""
        if xid8 >= self.next_xid:
            done(errors.InvalidParameterValue(f"transaction ID {xid8} is in the future"))
        else:
            # An id that a crash took from a transaction which was not durable counts as aborted.
            done((self.statuses.get(xid8, "aborted"), str(self.life)))

    def end_session_of(self, xid8: int | None, pid: int | None, done: Done) -> None:
        """pg_terminate_backend of the session that works under this id, or has this number."""
        found = [
            session
            for session in self.sessions
            if session.pid == pid or (session.transaction is not None and session.transaction.xid == xid8 is not None)
        ]
        for session in found:
            self.end_session(session)
        done([(True,) for _ in found])

    # -- inside ----------------------------------------------------------------------------------------------------

    def _close(self, session: Session, *, commit: bool) -> None:
        transaction, session.transaction = session.transaction, None
        if transaction is not None:
            (self._commit if commit else self._abort)(transaction)

    def _commit(self, transaction: Transaction) -> None:
        for row, amount in transaction.changes.items():
            self.rows[row] += amount
        if transaction.xid is not None:
            self.statuses[transaction.xid] = "committed"
            self.world.observe.branch_ended(self.name, transaction.mark, committed=True)
            self.world.trace(self.name, "committed %s", transaction.mark)
        self._release(transaction)

    def _abort(self, transaction: Transaction) -> None:
        if transaction.xid is not None:
            self.statuses[transaction.xid] = "aborted"
            self.world.observe.branch_ended(self.name, transaction.mark, committed=False)
            self.world.trace(self.name, "rolled back %s", transaction.mark)
        self._release(transaction)

    def _fail(self, session: Session) -> None:
        if session.transaction is not None:
            session.transaction.failed = True

    def _end_if_idle(self, session: Session, transaction: Transaction) -> None:
        if session.alive and session.transaction is transaction:
            left_s = session.active_at_s + transaction.idle_timeout_s - self.world.now_s
            if left_s > 0:
                self.world.later(left_s, self._end_if_idle, session, transaction)
            else:
                self.world.trace(self.name, "idle session of %s is ended", transaction.mark)
                self.end_session(session)

    def _lock(
        self, session: Session, transaction: Transaction, row: str, granted: Callable[[], None], refused: Done
    ) -> None:
        owner = self._owners.get(row)
        if owner is None or owner is transaction:
            self._owners[row] = transaction
            granted()
            return
        waiting = _Waiting(session, transaction, granted, refused)
        self._waiting.setdefault(row, deque()).append(waiting)
        self.world.later(transaction.lock_timeout_s, self._on_lock_timeout, waiting)

    def _on_lock_timeout(self, waiting: _Waiting) -> None:
        if not waiting.over:
            waiting.over = True
            waiting.transaction.failed = True
            waiting.refused(errors.LockNotAvailable("canceling statement due to lock timeout"))

    def _release(self, transaction: Transaction) -> None:
        for row in [row for row, owner in self._owners.items() if owner is transaction]:
            del self._owners[row]
            queue = self._waiting.get(row, deque())
            while queue:
                waiting = queue.popleft()
                if waiting.over or not waiting.session.alive or waiting.session.transaction is not waiting.transaction:
                    continue
                waiting.over = True
                self._owners[row] = waiting.transaction
                waiting.granted()
                break
