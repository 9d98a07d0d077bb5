"""What `handfast doctor` wants to know of a Postgres: each check gives a finding, and each bad finding its mend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from psycopg.rows import dict_row

from participant.config import ParticipantOptions
from participant.postgres.session import Session
from participant.resource import Finding, Severity

_FACTS = """
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_number,
       current_database() AS database,
       pg_is_in_recovery() AS standby,
       current_setting('max_prepared_transactions')::int AS slots,
       current_setting('max_connections')::int AS connections,
       (SELECT count(*) FROM pg_prepared_xacts) AS prepared,
       (SELECT count(*) FROM pg_prepared_xacts WHERE owner <> current_user AND database = current_database()
            AND gid LIKE 'handfast\\_%%') AS prepared_by_others,
       (SELECT gid FROM pg_prepared_xacts ORDER BY prepared LIMIT 1) AS oldest_gid,
       (SELECT extract(epoch FROM clock_timestamp() - min(prepared)) FROM pg_prepared_xacts)::float AS oldest_s,
       current_user::text AS role,
       coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false) AS superuser,
       (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS clock_unix_ms,
       current_setting('client_connection_check_interval', true) AS alive_check,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('fsync') AS fsync
"""

_VERSION_MIN = 140_000
_SLOTS_FREE_MIN = 0.2
_OLDEST_S_MAX = 60.0
_CLOCK_MS_MAX = 1_000

Facts = Mapping[str, Any]


async def check(connection: Session, options: ParticipantOptions, clock_unix_ms: int) -> list[Finding]:
    """Check a Postgres.

    Args:
        connection: to it.
        options: the participant's.
        clock_unix_ms: this machine's clock, in milliseconds since 1970.

    Raises:
        psycopg.Error: it refused.
    """
    cursor = connection.cursor(row_factory=dict_row)
    facts = await (await cursor.execute(_FACTS)).fetchone()
    return [] if facts is None else [*_findings(facts, options, clock_unix_ms)]


def unreachable(problem: str) -> list[Finding]:
    """The findings when it can't be asked."""
    mend = "Start it, or check the participant's DSN and the network."
    return [Finding("connection", Severity.ERROR, problem, mend)]


def _findings(facts: Facts, options: ParticipantOptions, clock_unix_ms: int) -> Iterator[Finding]:
    yield _version(facts)
    yield _slots(facts)
    if facts["slots"]:
        yield _free_slots(facts)
    yield _oldest(facts)
    yield _role(facts)
    yield _durability(facts)
    yield _clock(facts, clock_unix_ms)
    yield _settings(facts, options)


def _version(facts: Facts) -> Finding:
    found = f"PostgreSQL {facts['version']}, database {facts['database']}"
    if facts["standby"]:
        mend = "Point the participant's DSN at the primary (target_session_attrs=read-write)."
        return Finding("server", Severity.ERROR, f"{found}, a read-only standby", mend)
    if facts["version_number"] < _VERSION_MIN:
        return Finding("server", Severity.ERROR, found, "Use PostgreSQL 14 or newer.")
    return Finding("server", Severity.OK, found)


def _slots(facts: Facts) -> Finding:
    slots, connections, check = facts["slots"], facts["connections"], "max_prepared_transactions"
    mend = f"Set max_prepared_transactions = {connections} (max_connections) and restart Postgres."
    if slots == 0:
        return Finding(check, Severity.ERROR, "0: no branch can be prepared", mend)
    if slots < connections:
        found = f"{slots}, fewer than max_connections ({connections}): as many branches can't be in doubt at once"
        return Finding(check, Severity.WARNING, found, mend)
    return Finding(check, Severity.OK, str(slots))


def _free_slots(facts: Facts) -> Finding:
    slots, free = facts["slots"], facts["slots"] - facts["prepared"]
    found = f"{free} of {slots} free"
    if free <= 0:
        mend = (
            "End orphans (`handfast indoubt`; foreign ones by ROLLBACK PREPARED), or raise max_prepared_transactions."
        )
        return Finding("free slots", Severity.ERROR, found, mend)
    if free < slots * _SLOTS_FREE_MIN:
        mend = "`handfast indoubt` shows who holds them; raise max_prepared_transactions if they are all in use."
        return Finding("free slots", Severity.WARNING, found, mend)
    return Finding("free slots", Severity.OK, found)


def _oldest(facts: Facts) -> Finding:
    check = "oldest prepared transaction"
    if facts["oldest_gid"] is None:
        return Finding(check, Severity.OK, "none")
    found = f"{facts['oldest_gid']}, prepared {facts['oldest_s']:.0f} s ago"
    if facts["oldest_s"] <= _OLDEST_S_MAX:
        return Finding(check, Severity.OK, found)
    ours = facts["oldest_gid"].startswith("handfast_")
    mend = (
        "`handfast indoubt` tells why it is there and what it blocks."
        if ours
        else "It is not Handfast's. It holds its locks and keeps vacuum back: ask whoever made it to end it."
    )
    return Finding(check, Severity.WARNING, found, mend)


def _role(facts: Facts) -> Finding:
    others, found = facts["prepared_by_others"], f"{facts['role']}, {'a' if facts['superuser'] else 'no'} superuser"
    if facts["superuser"]:
        return Finding("role", Severity.OK, f"{found}: it can end every branch")
    if others:
        found = f"{found}; {others} prepared branches here belong to other roles, and it can't end them"
        return Finding("role", Severity.ERROR, found, "Let all instances of the resource connect as the same role.")
    return Finding("role", Severity.OK, f"{found}: it can end the branches that it prepared itself")


def _durability(facts: Facts) -> Finding:
    found = f"fsync = {facts['fsync']}, synchronous_commit = {facts['synchronous_commit']}"
    if facts["fsync"] != "on":
        mend = "Set fsync = on: a YES must survive a crash of the machine."
        return Finding("durability", Severity.WARNING, found, mend)
    return Finding("durability", Severity.OK, found)  # PREPARE waits for the disk even when synchronous_commit is off


def _clock(facts: Facts, clock_unix_ms: int) -> Finding:
    ahead_ms = facts["clock_unix_ms"] - clock_unix_ms
    found = f"the database's clock is {abs(ahead_ms)} ms {'ahead of' if ahead_ms >= 0 else 'behind'} this process's"
    if abs(ahead_ms) <= _CLOCK_MS_MAX:
        return Finding("clock", Severity.OK, found)
    return Finding("clock", Severity.WARNING, found, "Synchronize both machines (NTP). Only reports suffer from it.")


def _settings(facts: Facts, options: ParticipantOptions) -> Finding:
    used = options.connections_max + options.finish_connections_max
    found = (
        f"{options.connections_max} connections for work and {options.finish_connections_max} for phase two of the "
        f"server's {facts['connections']}; lock_timeout {options.lock_timeout_s:g} s, "
        f"idle sessions end {options.idle_margin_s:g} s after their deadline"
    )
    if used > facts["connections"]:
        mend = f"Lower connections_max, or raise the server's max_connections above {used}."
        return Finding("sessions", Severity.WARNING, found, mend)
    if facts["alive_check"] is None:
        mend = "Use PostgreSQL 14 or newer, so that a statement ends when its client has died."
        return Finding("sessions", Severity.WARNING, found, mend)
    return Finding("sessions", Severity.OK, found)
