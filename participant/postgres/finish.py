"""Ending branches by name, and proving how they ended.

COMMIT PREPARED and ROLLBACK PREPARED answer 42704 for a branch that was never prepared, for one that was committed and
for one that was rolled back: the same answer for opposite ends. What tells them apart is the transaction id that the
branch's vote carried as its proof: ``pg_xact_status`` says "committed" or "aborted", "in progress" while the branch is
open or prepared, and nothing when the id is older than what the server remembers (it forgets when it freezes, far later
than any coordinator retries; a server restored from a backup may forget at once).

One trap: a server that crashes forgets the ids it gave to transactions of which nothing had reached the disk, and gives
them out again. A branch that voted YES is on the disk, so its id is its own forever. A one-phase COMMIT may not be, so
its proof also carries the server's *life* (since when it counts what its writer does: a crash starts that anew), and
"committed" proves nothing when the life has changed. "aborted" still does: had the COMMIT been durable, the id would
not have been given out again. The same goes for a PREPARE whose answer was lost, until the branch is seen prepared.

The order of questions matters. A branch goes from open over prepared to ended and never back, so the list of prepared
branches is read before the status: "not prepared" and then "in progress" means that a session still works on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import psycopg

from handfast.catalog import HandfastFault
from handfast.xid import Xid
from participant.clock import Clock
from participant.config import ParticipantOptions
from participant.postgres.errors import NO_SUCH_PREPARED, finish_fault, text_of
from participant.postgres.pools import Pool, PoolFull
from participant.postgres.session import BranchConnection, Session
from participant.protocol import Fate
from participant.resource import AnswerLost, End, Found, Stand

PROOF_PREFIX = "pg:"
LIFE = "extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time())::text"
"""SQL for the server's life: changes when it crashes, and when somebody resets that counter, which does no harm. Of all
the counters that a crash starts anew this one's time is the cheapest to ask for: 6 µs, where a view takes 36."""
_XID8_MAX = 2**64 - 1
_XID_SPAN = 2**32

_LIST = """
SELECT gid, transaction::text, pg_snapshot_xmax(pg_current_snapshot())::text FROM pg_prepared_xacts
WHERE gid = ANY(%s) AND database = current_database()
"""
_STATUS = f"SELECT pg_xact_status(%s::xid8), {LIFE}"
_END_SESSION = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE (backend_xid::text = %s OR pid = %s) AND datname = current_database() AND pid <> pg_backend_pid()
"""

_STANDS: Mapping[str | None, tuple[Stand, str]] = {
    "committed": (Stand.COMMITTED, "committed"),
    "aborted": (Stand.ABORTED, "aborted"),
    "in progress": (Stand.OPEN, "in progress, and not prepared in this database"),
    None: (Stand.UNPROVED, "older than what the server remembers"),
}

_LOOK_S = 3.0
_LOOK_PAUSE_S = 0.05

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def make_proof(xid8: str, life: str = "") -> str:
    """The proof that a vote carries, ``pg:<xid8>``; with a life, ``pg:<xid8>@<life>``, that of a one-phase COMMIT."""
    return f"{PROOF_PREFIX}{xid8}@{life}" if life else PROOF_PREFIX + xid8


def proof_of_running(xid32: str, near_xid8: str) -> str:
    """The proof of a transaction that runs or is prepared, and of whose id only the lower half is known.

    Args:
        xid32: that half.
        near_xid8: a current id. The one meant is the nearest to it, as every running transaction is less than 2^31 ids
            away from it.
    """
    near = int(near_xid8)
    ahead = (int(xid32) - near + _XID_SPAN // 2) % _XID_SPAN - _XID_SPAN // 2
    return make_proof(str(near + ahead))


def xid8_of(proof: str) -> str | None:
    """The transaction id in a proof; None when it is empty, or not one of ours."""
    digits = proof.removeprefix(PROOF_PREFIX).partition("@")[0]
    well_formed = proof.startswith(PROOF_PREFIX) and digits.isascii() and digits.isdigit() and len(digits) <= 20
    return digits if well_formed and int(digits) <= _XID8_MAX else None


class Finisher:
    """Phase two and the questions around it, on connections of their own, or on one of work's that is free.

    Args:
        pool: those connections; in autocommit.
        work: the branches' connections, of which an idle one may be borrowed.
        resource: the resource's name, for messages.
        options: how long to wait.
        clock: for pauses between looks.
    """

    def __init__(
        self,
        pool: Pool[Session],
        work: Pool[BranchConnection],
        resource: str,
        options: ParticipantOptions,
        clock: Clock,
    ) -> None:
        self._pool = pool
        self._work = work
        self._resource = resource
        self._options = options
        self._clock = clock

    async def run(self, use: Callable[[Session], Awaitable[Result]]) -> Result:
        """Use one of the connections for something that may safely be done twice.

        Raises:
            psycopg.Error: it failed.
            PoolFull: no connection came free in time.
            TimeoutError: it took too long.
        """
        async with asyncio.timeout(2 * self._options.finish_wait_s):
            connection, result = await self._pool.take(self._options.finish_wait_s, use)
        await self._pool.give(connection)
        return result

    def commit_prepared(self, xid: Xid, proof: str) -> Coroutine[Any, Any, End]:
        """See ResourceManager."""
        return self._finish("COMMIT PREPARED", Fate.COMMITTED, xid, proof)

    def rollback_prepared(self, xid: Xid, proof: str) -> Coroutine[Any, Any, End]:
        """See ResourceManager."""
        return self._finish("ROLLBACK PREPARED", Fate.ABORTED, xid, proof)

    async def ends_of(self, branches: Sequence[tuple[Xid, str]]) -> list[Found]:
        """See ResourceManager."""
        gids = [xid.gid() for xid, _ in branches]

        async def look(connection: Session) -> list[Found]:
            rows = await (await connection.execute(_LIST, (gids,))).fetchall()
            prepared = {gid: proof_of_running(xid32, near_xid8) for gid, xid32, near_xid8 in rows}
            return [
                Found(Stand.PREPARED, f"pg_prepared_xacts has {gid}", proof=prepared[gid])
                if gid in prepared
                else await _stand(connection, proof)
                for gid, (_, proof) in zip(gids, branches, strict=True)
            ]

        return await self._ask(look)

    async def settle_lost(self, xid: Xid, proof: str, backend_pid: int, problem: BaseException) -> Found:
        """Find out what became of a branch whose connection broke during PREPARE or COMMIT.

        Its session may not have noticed yet. It can't be of use to anybody, so it is ended, and then asked about again.
        Without a proof it is the session that tells: once it has ended, what is not prepared never will be.

        Args:
            xid: the branch.
            proof: its proof, when it was read before PREPARE or COMMIT was sent; else empty.
            backend_pid: the server's process for its connection.
            problem: how the connection broke.

        Returns:
            Where the branch stands; never OPEN.

        Raises:
            AnswerLost: nobody can tell in time.
        """
        why = text_of(problem)
        give_up_s = self._clock.monotonic_s() + _LOOK_S
        while True:
            try:
                found = await self._find(xid, proof, backend_pid)
                if found.stand is not Stand.OPEN:
                    return found
            except HandfastFault as fault:
                why = fault.message
            if self._clock.monotonic_s() >= give_up_s:
                raise AnswerLost(proof, why)
            await self._clock.sleep(_LOOK_PAUSE_S)

    async def _find(self, xid: Xid, proof: str, backend_pid: int) -> Found:
        """Look once, and end the branch's session when it is still there."""
        (found,) = await self.ends_of([(xid, proof)])
        if found.stand is Stand.PREPARED or (proof and found.stand is not Stand.OPEN):
            return found
        if await self._end_session(proof, backend_pid) or proof:
            return Found(Stand.OPEN, "its session is still there")
        (found,) = await self.ends_of([(xid, proof)])  # it may have prepared the branch between the two looks
        if found.stand is Stand.PREPARED:
            return found
        return Found(Stand.ABORTED, f"the session of process {backend_pid} has ended, and has not prepared it")

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _finish(self, what: str, fate: Fate, xid: Xid, proof: str) -> End:
        command = f"{what} '{xid.gid()}'"
        try:
            done = await self._on_borrowed(command, xid)
            if done is None:
                finish = partial(_end_prepared, command=command, limit_s=self._options.finish_wait_s)
                connection, done = await self._pool.take(
                    self._options.finish_wait_s, finish, self._options.finish_wait_s
                )
                await self._pool.give(connection)
        except (psycopg.Error, PoolFull, TimeoutError) as problem:
            raise finish_fault(problem, xid, self._resource) from problem
        return _ENDS[fate] if done else await self._proved_end(xid, proof)

    async def _on_borrowed(self, command: str, xid: Xid) -> bool | None:
        """End the branch on a work connection that is idle just now.

        Work may have left anything in its session: a role that may not, a time limit that is too short. So an error
        there says nothing yet, and the same is done again on a connection of phase two, which decides. That does no
        harm when the first was carried out and only its answer lost: the second will be told that nothing is prepared.

        Returns:
            Whether it was prepared; None when no connection was free, or it did not work.

        Raises:
            TimeoutError: there was no answer in time. Another connection would most likely have to wait as long.
        """
        connection = self._work.lend()
        if connection is None:
            return None
        try:
            done = await _end_prepared(connection, command, self._options.finish_wait_s)
        except psycopg.Error as problem:
            log.info("%s of %s: tried on a work connection: %s", xid.bqual, xid.gtrid, text_of(problem))
            connection.may_finish = False
            await self._work.give(connection)
            return None
        except BaseException:
            await self._work.drop(connection)
            raise
        await self._work.give(connection)
        return done

    async def _proved_end(self, xid: Xid, proof: str) -> End:
        """The branch is not prepared: prove how it ended."""
        (found,) = await self.ends_of([(xid, proof)])
        if found.stand in {Stand.OPEN, Stand.PREPARED}:
            raise HandfastFault("BRANCH_BUSY", gtrid=xid.gtrid, bqual=xid.bqual, problem=found.evidence)
        return End(_FATES[found.stand], found.evidence)

    async def _end_session(self, proof: str, backend_pid: int) -> bool:
        """End the session that works under a branch's id, or in this process of the server; False when there is none.

        A process number that the server has given to another session meanwhile would cost that one its connection. It
        would take as many new sessions within this moment as there are process numbers.
        """
        xid8 = xid8_of(proof)
        parameters = (str(int(xid8) % _XID_SPAN), None) if xid8 is not None else (None, backend_pid)

        async def end(connection: Session) -> bool:
            return await (await connection.execute(_END_SESSION, parameters)).fetchone() is not None

        return await self._ask(end)

    async def _ask(self, use: Callable[[Session], Awaitable[Result]]) -> Result:
        try:
            return await self.run(use)
        except (psycopg.Error, PoolFull, TimeoutError) as problem:
            raise HandfastFault("RESOURCE_UNREACHABLE", resource=self._resource, problem=text_of(problem)) from problem


_ENDS: Mapping[Fate, End] = {fate: End(fate, "") for fate in Fate}
"""Carried out as asked."""

_FATES: Mapping[Stand, Fate] = {
    Stand.COMMITTED: Fate.COMMITTED,
    Stand.ABORTED: Fate.ABORTED,
    Stand.UNPROVED: Fate.UNPROVED,
}


async def _end_prepared(connection: Session, command: str, limit_s: float) -> bool:
    """COMMIT PREPARED or ROLLBACK PREPARED; False when nothing is prepared under that name."""
    try:
        await connection.command(command, limit_s)
    except psycopg.Error as problem:
        if problem.sqlstate == NO_SUCH_PREPARED:
            return False
        raise
    return True


async def _stand(connection: Session, proof: str) -> Found:
    xid8 = xid8_of(proof)
    if xid8 is None:
        return Found(Stand.UNPROVED, f"there is no proof to ask by ({proof!r})" if proof else "there is no proof")
    try:
        row: tuple[Any, ...] | None = await (await connection.execute(_STATUS, (xid8,))).fetchone()
    except psycopg.errors.InvalidParameterValue:
        problem = f"pg_xact_status({xid8}): the server has not come to that id yet; another server, or a restored one?"
        return Found(Stand.UNPROVED, problem, lost=True)
    status, life = row or (None, "")
    stand, words = _STANDS[status]
    life_then = proof.partition("@")[2]
    if stand is Stand.COMMITTED and life_then and life_then != life:
        return Found(
            Stand.UNPROVED, f"pg_xact_status({xid8}): {words}, but the server crashed since and may mean another"
        )
    return Found(stand, f"pg_xact_status({xid8}): {words}")
