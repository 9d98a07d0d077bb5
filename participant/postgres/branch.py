"""One open branch: a Postgres transaction that only PREPARE TRANSACTION, or a one-phase COMMIT, may end well.

What has to be known before a branch may vote YES:

- *Is it still our transaction?* The work could have ended it with a COMMIT of its own, and psycopg would quietly begin
  another, whose PREPARE would succeed and promise nothing. So BEGIN marks the transaction with a setting that dies with
  it, and the mark is read back.
- *Did it change anything?* A transaction without an id has not, takes no slot, and leaves in phase one. (A NOTIFY does
  not count: in a branch that changes nothing else it is sent at the vote.)
- *Which id?* It is the proof of how the branch ended.
- *Is its session still as durable as others?* Only for phase two, which may borrow the connection afterwards
  (``Pool.lend``); it is no condition of the vote.

One question asks for all of it. When it looks as if the branch has changed something (a statement said so, see
``BranchConnection``), PREPARE follows in the same message, and the answers to both come together. When the answers say
that there was nothing to prepare after all, or that it was not ours, what was prepared is rolled back before there is a
vote; a crash in between leaves an orphan without a vote, which presumed abort sweeps away. Otherwise the question goes
first, when a piece of work is done (``settle``): a branch that has changed nothing must not be prepared at all. For
work that came by a call this overlaps the enlisting.

When the answer to PREPARE is lost, the branch is looked for: by its id, when that is known, or by its name and the
server process that was to prepare it (``Finisher.settle_lost``).

PREPARE TRANSACTION of a failed transaction succeeds with the tag ROLLBACK: the tag is checked.

Whoever begins to end the branch first, by preparing, committing, rolling back or abandoning it, owns its connection
from then on (``_own``). An abandon that comes second would stop the statement of another branch, which has the
connection by then.
"""

from __future__ import annotations

import asyncio
import logging

import psycopg
from psycopg.pq import TransactionStatus

from handfast.catalog import HandfastFault
from handfast.xid import Xid
from participant.config import MS_MAX, ParticipantOptions
from participant.postgres.errors import prepare_fault, text_of
from participant.postgres.finish import LIFE, Finisher, make_proof
from participant.postgres.pools import Pool
from participant.postgres.session import SYNCHRONOUS_COMMIT, Answer, BranchConnection
from participant.resource import AnswerLost, Found, Prepared, ReadOnly, Stand

_MARK = "handfast.branch"
_QUESTIONS = f"SELECT pg_current_xact_id_if_assigned(), current_setting('{_MARK}', true), {SYNCHRONOUS_COMMIT}"
_STANDING = f"{_QUESTIONS}, {LIFE}"

_CANCEL_S = 2.0
_ROLLBACK_S = 5.0

log = logging.getLogger(__name__)


async def begin(connection: BranchConnection, gid: str, time_left_s: float, options: ParticipantOptions) -> None:
    """Begin a branch's transaction: BEGIN and its settings in one round trip.

    Args:
        connection: with nothing open.
        gid: the branch's.
        time_left_s: the time to its deadline, in seconds.
        options: for the timeouts.

    Raises:
        psycopg.Error: it did not begin.
        TimeoutError: it did not begin before the deadline.
    """
    lock_ms = max(1, round(1000 * min(options.lock_timeout_s, time_left_s)))
    idle_ms = min(max(1, round(1000 * (time_left_s + options.idle_margin_s))), MS_MAX)
    connection.begin_branch()
    await connection.command(
        f"BEGIN; SET LOCAL lock_timeout = {lock_ms:d}; SET LOCAL idle_in_transaction_session_timeout = {idle_ms:d}; "
        f"SET LOCAL {_MARK} = '{gid}'",
        time_left_s,
    )


class PostgresBranch:
    """See OpenBranch.

    Args:
        xid: its name.
        gid: the same, spelled for Postgres.
        connection: its connection, in the transaction that ``begin`` began.
        pool: where the connection goes afterwards.
        finisher: asks, on another connection, what became of it when this one broke.
        resource: the resource's name, for messages.
    """

    def __init__(
        self,
        xid: Xid,
        gid: str,
        connection: BranchConnection,
        pool: Pool[BranchConnection],
        finisher: Finisher,
        resource: str,
    ) -> None:
        self._xid = xid
        self._gid = gid
        self._connection = connection
        self._pool = pool
        self._finisher = finisher
        self._resource = resource
        self._xid8: str | None = None  # None while it has to be asked for
        self._life = ""
        self._owned = False

    @property
    def connection(self) -> BranchConnection:
        """The connection that the work uses."""
        self._xid8 = None  # whoever holds it may change something
        return self._connection

    async def settle(self) -> None:
        """See OpenBranch. What only the server can tell is left to ``prepare`` when there is something to prepare."""
        self._check_sound()
        if not self._connection.changed:
            await self._ask()

    async def prepare(self) -> Prepared | ReadOnly:
        """See OpenBranch."""
        self._own()
        if self._xid8 is None and self._connection.changed:
            return await self._prepare_and_ask()
        xid8 = await self._settled_xid8()
        if not xid8:
            await self._commit_read_only()
            return ReadOnly()
        # Until it is known to be prepared, a crash may give its id to another transaction, whose COMMIT proves nothing.
        maybe = make_proof(xid8, self._life)
        ended = await self._end(f"PREPARE TRANSACTION '{self._gid}'", "PREPARE TRANSACTION", maybe)
        if isinstance(ended, Found) and ended.stand is not Stand.PREPARED:
            raise self._not_done(ended.stand)
        return Prepared(make_proof(xid8))

    async def commit(self) -> str:
        """See OpenBranch."""
        self._own()
        xid8 = await self._settled_xid8()
        if not xid8:
            await self._commit_read_only()
            return ""
        proof = make_proof(xid8, self._life)
        ended = await self._end("COMMIT", "COMMIT", proof)
        if not isinstance(ended, Found) or ended.stand is Stand.COMMITTED:
            return proof
        if ended.stand is Stand.UNPROVED:
            # Committed perhaps, right before the server crashed: with its life its word on ids is gone.
            raise AnswerLost(
                proof, "the connection broke at COMMIT, and Postgres can't prove any more what became of it"
            )
        raise self._not_done(ended.stand)

    async def rollback(self) -> None:
        """See OpenBranch."""
        if self._own():
            await self._roll_back()

    async def _roll_back(self) -> None:
        try:
            async with asyncio.timeout(_ROLLBACK_S):
                if not self._connection.is_idle:
                    await self._connection.execute("ROLLBACK")
        except (psycopg.Error, TimeoutError) as problem:
            # Closing it rolls back as well; whatever was wrong with it, it is not handed on.
            log.info("%s of %s: ROLLBACK failed, closing: %s", self._xid.bqual, self._xid.gtrid, text_of(problem))
            await self._pool.drop(self._connection)
        else:
            await self._pool.give(self._connection)

    async def abandon(self, reason: str) -> None:
        """See OpenBranch.

        The statement is cancelled and the socket shut down, so that whoever waits on it gets an error now, whatever the
        network does. Only then, when nobody uses it any more, the connection is closed.
        """
        if not self._own():
            return
        log.info("%s of %s: its connection is closed under its work: %s", self._xid.bqual, self._xid.gtrid, reason)
        connection = self._connection
        if not connection.closed:
            if connection.info.transaction_status is TransactionStatus.ACTIVE:
                await self._cancel()
            connection.shut_down()
        try:
            async with asyncio.timeout(_ROLLBACK_S), connection.lock:
                pass
        except TimeoutError:
            log.warning("%s of %s: its work does not let go of the connection", self._xid.bqual, self._xid.gtrid)
        await self._pool.drop(connection)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _own(self) -> bool:
        """Begin to end the branch; False when that has begun."""
        owned, self._owned = self._owned, True
        return not owned

    def _check_sound(self) -> None:
        """Raise when what this side of the connection knows is enough to say that the branch can't be prepared."""
        if not self._connection.is_in_transaction:
            raise self._unsound(self._connection.info.transaction_status)
        if self._connection.left:
            raise self._unsound(TransactionStatus.IDLE)

    async def _ask(self) -> None:
        try:
            xid8, mark, synchronous_commit, life = (await self._connection.command(_STANDING)).row
        except psycopg.Error as problem:
            raise prepare_fault(problem, self._xid, self._resource) from problem
        if mark != self._gid:
            raise self._unsound(TransactionStatus.IDLE)
        self._connection.on_settled(synchronous_commit)
        self._xid8, self._life = xid8 or "", life or ""

    async def _settled_xid8(self) -> str:
        if self._xid8 is None:
            try:
                self._check_sound()
                await self._ask()
            except HandfastFault:
                await self._roll_back()
                raise
        return self._xid8 or ""

    async def _prepare_and_ask(self) -> Prepared | ReadOnly:
        """Prepare a branch that has most likely changed something, and ask in the same round trip whether it has."""
        try:
            self._check_sound()
        except HandfastFault:
            await self._roll_back()
            raise
        ended = await self._end(
            f"{_QUESTIONS}; PREPARE TRANSACTION '{self._gid}'", "PREPARE TRANSACTION", "", give=False
        )
        if isinstance(ended, Found):
            if ended.stand is Stand.PREPARED:
                return Prepared(ended.proof)
            raise self._not_done(ended.stand)
        xid8, mark, synchronous_commit = ended.row
        self._connection.on_settled(synchronous_commit)
        if xid8 and mark == self._gid:
            await self._pool.give(self._connection)
            return Prepared(make_proof(xid8))
        await self._take_back()
        if mark != self._gid:
            raise self._unsound(TransactionStatus.IDLE)
        return ReadOnly()

    async def _take_back(self) -> None:
        """Roll back what should not have been prepared: another transaction than ours, or one that changed nothing.

        Until that is done there is no vote. When it can't be done, and when this process dies before, the vote is NO or
        there is none, and what is left prepared is found by recovery and rolled back like any other orphan.
        """
        try:
            await self._connection.command(f"ROLLBACK PREPARED '{self._gid}'", _ROLLBACK_S)
        except (psycopg.Error, TimeoutError) as problem:
            await self._pool.drop(self._connection)
            raise self._fault("PREPARE_FAILED", f"nothing was to be prepared, and {text_of(problem)}") from problem
        await self._pool.give(self._connection)

    async def _commit_read_only(self) -> None:
        """End a branch that changed nothing. COMMIT, for serializable reads are valid only when it succeeds."""
        try:
            tag = (await self._connection.command("COMMIT")).tag
        except psycopg.Error as problem:
            await self._roll_back()
            raise prepare_fault(problem, self._xid, self._resource) from problem
        if tag != "COMMIT":
            await self._pool.drop(self._connection)
            raise self._fault("PREPARE_FAILED", f"Postgres answered {tag}")
        await self._pool.give(self._connection)

    async def _end(self, command: str, tag_wanted: str, proof: str, *, give: bool = True) -> Answer | Found:
        """Send what ends the branch's session.

        Args:
            command: what.
            tag_wanted: its tag.
            proof: by which to look for it when the answer is lost; empty when that is not known yet.
            give: give the connection back when all went well.

        Returns:
            The answer when it was the one wanted; where the branch stands when the answer was lost.

        Raises:
            HandfastFault: it failed, and the branch is rolled back.
            AnswerLost: nobody can tell.
        """
        try:
            answer = await self._connection.command(command)
        except psycopg.Error as problem:
            if self._connection.closed or self._connection.broken:
                return await self._look_for(proof, problem)
            await self._roll_back()
            raise prepare_fault(problem, self._xid, self._resource) from problem
        except BaseException as problem:
            # Interrupted with the command on its way: psycopg has cancelled it or closed the connection.
            if not isinstance(problem, Exception):
                await self._pool.drop(self._connection)
                raise
            return await self._look_for(proof, problem)
        if answer.tag != tag_wanted:
            # It is rolled back, of which psycopg's cache of prepared statements has not heard.
            await self._pool.drop(self._connection)
            raise self._fault("PREPARE_FAILED", f"the transaction had failed, so that Postgres answered {answer.tag}")
        if give:
            await self._pool.give(self._connection)
        return answer

    async def _look_for(self, proof: str, problem: BaseException) -> Found:
        """The answer is lost, and the connection with it."""
        await self._pool.drop(self._connection)
        return await self._finisher.settle_lost(self._xid, proof, self._connection.backend_pid, problem)

    def _not_done(self, stand: Stand) -> HandfastFault:
        what = "rolled it back" if stand is Stand.ABORTED else f"says it is {stand.value}"
        return self._fault("PREPARE_FAILED", f"the connection broke, and Postgres {what}")

    def _unsound(self, status: TransactionStatus) -> HandfastFault:
        return self._fault("BRANCH_FAILED", _UNSOUND.get(status, f"its connection is left in the state {status.name}"))

    def _fault(self, code: str, problem: str) -> HandfastFault:
        xid = self._xid
        return HandfastFault(code, gtrid=xid.gtrid, bqual=xid.bqual, resource=self._resource, problem=problem)

    async def _cancel(self) -> None:
        try:
            await self._connection.cancel_safe(timeout=_CANCEL_S)
        except psycopg.Error as problem:
            # The server notices by itself that the connection is gone (client_connection_check_interval).
            log.info("%s of %s: its statement can't be cancelled: %s", self._xid.bqual, self._xid.gtrid, problem)


_UNSOUND = {
    TransactionStatus.INERROR: "a statement failed in it, and the error was caught inside the branch",
    TransactionStatus.IDLE: "its work ended the transaction itself, by COMMIT or ROLLBACK",
    TransactionStatus.ACTIVE: "its work left a statement, a pipeline or a COPY open",
    TransactionStatus.UNKNOWN: "its connection is closed",
}
