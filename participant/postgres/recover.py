"""The branches that are prepared in our database, and what each of them holds up.

A prepared transaction has no session. ``pg_locks`` shows its locks without a pid, under a virtual transaction of
its own (a backend's while the server runs that prepared it, ``-1/xid`` after a restart); the lock on its transaction id
leads from one to the other. ``pg_blocking_pids`` calls it 0. So who waits for it is found by comparing lock tags: first
those who wait for a lock that it holds, then those who queue behind them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from handfast.xid import Xid
from participant.postgres.finish import proof_of_running
from participant.postgres.session import Session
from participant.resource import Blocked, PreparedBranch

_LIST = """
SELECT gid, transaction::text, owner::text, database::text,
       (extract(epoch FROM prepared) * 1000)::bigint,
       greatest(0, extract(epoch FROM clock_timestamp() - prepared) * 1000)::bigint,
       age(transaction), pg_snapshot_xmax(pg_current_snapshot())::text
FROM pg_prepared_xacts
WHERE database = current_database() AND gid LIKE 'handfast\\_%%'
ORDER BY prepared
"""

_TAG = (
    "ROW(l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid, l.transactionid::text, l.classid, l.objid,"
    " l.objsubid)::text"
)

_LOCKS = f"""
SELECT holder.transactionid::text, {_TAG} FROM pg_locks l
JOIN pg_locks holder ON holder.virtualtransaction = l.virtualtransaction AND holder.pid IS NULL
    AND holder.locktype = 'transactionid' AND holder.granted AND holder.transactionid::text = ANY(%s)
WHERE l.pid IS NULL AND l.granted
"""

_WAITERS = f"""
SELECT l.pid, {_TAG}, pg_blocking_pids(l.pid),
       greatest(0, extract(epoch FROM clock_timestamp() - coalesce(l.waitstart, a.query_start)) * 1000)::bigint,
       left(coalesce(a.query, ''), 200)
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND l.pid IS NOT NULL
"""

Row = tuple[Any, ...]


async def list_prepared(
    connection: Session, resource: str, coordinator_id: str, *, detail: bool
) -> list[PreparedBranch]:
    """See ResourceManager.recover.

    Raises:
        psycopg.Error: the database refused.
    """
    rows = await (await connection.execute(_LIST)).fetchall()
    ours = [(xid, row) for row in rows if (xid := Xid.from_gid(row[0])) and _is_ours(xid, resource, coordinator_id)]
    if not detail or not ours:
        return [_prepared(xid, row) for xid, row in ours]
    tags, waiters = await _locks(connection, [row[1] for _, row in ours]), await _waiters(connection)
    return [_prepared(xid, row, tags.get(row[1], []), waiters) for xid, row in ours]


def _is_ours(xid: Xid, resource: str, coordinator_id: str) -> bool:
    return xid.resource == resource and (not coordinator_id or xid.coordinator_id == coordinator_id)


def _prepared(xid: Xid, row: Row, tags: list[str] | None = None, waiters: Iterable[Row] = ()) -> PreparedBranch:
    _, xid32, owner, database, prepared_unix_ms, age_ms, xmin_age, near_xid8 = row
    return PreparedBranch(
        xid=xid,
        proof=proof_of_running(xid32, near_xid8),
        prepared_unix_ms=prepared_unix_ms,
        age_ms=age_ms,
        owner=owner,
        database=database,
        locks_held=len(tags or ()),
        blocked=_blocked(tags, waiters) if tags else (),
        xmin_age=xmin_age if tags is not None else 0,
    )


async def _locks(connection: Session, xids: list[str]) -> dict[str, list[str]]:
    """The lock tags that each prepared transaction holds."""
    tags: dict[str, list[str]] = {}
    for xid32, tag in await (await connection.execute(_LOCKS, (xids,))).fetchall():
        tags.setdefault(xid32, []).append(tag)
    return tags


async def _waiters(connection: Session) -> list[Row]:
    return await (await connection.execute(_WAITERS)).fetchall()


def _blocked(tags: Iterable[str], waiters: Iterable[Row]) -> tuple[Blocked, ...]:
    """Who waits for these locks, and who queues behind those; longest wait first."""
    held, waiting = set(tags), list(waiters)
    pids = {pid for pid, tag, blockers, *_ in waiting if tag in held and 0 in blockers}
    while behind := {pid for pid, _, blockers, *_ in waiting if pids.intersection(blockers)} - pids:
        pids |= behind
    found = {pid: Blocked(pid, waiting_ms, text) for pid, _, _, waiting_ms, text in waiting if pid in pids}
    return tuple(sorted(found.values(), key=lambda blocked: -blocked.waiting_ms))
