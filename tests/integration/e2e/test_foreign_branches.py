"""Prepared transactions of others, on the same server and in the same database: never touched."""

import time
from collections.abc import Iterator

import psycopg
import pytest

from chaos.bank_stack import DATABASE, BankStack
from chaos.stack import wait_until
from handfast.xid import Gtrid, Xid
from tests.integration.e2e.bank_world import off_loop, restart_coordinator, restart_service


def now_ms() -> int:
    """Names from before the log, or its present life, began would be left alone for that reason already."""
    return time.time_ns() // 1_000_000


def prepare(bank: BankStack, gid: str) -> None:
    """Prepare a transaction, as psql would."""
    with psycopg.connect(bank.databases["accounts"].dsn(DATABASE), autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO stranger VALUES (1)")
        connection.execute(f"PREPARE TRANSACTION '{gid}'".encode())


def prepared(bank: BankStack) -> set[str]:
    return {branch.gid for branch in bank.prepared(["accounts"])}


@pytest.fixture
def foreign(bank: BankStack) -> Iterator[set[str]]:
    """One prepared transaction of each kind of stranger."""
    ours = bank.admin.status().coordinator_id
    accounts = bank.databases["accounts"]
    accounts.execute(b"CREATE TABLE stranger (id int)", database=DATABASE)
    gids = {
        # Made by hand, and by another transaction manager that shares the server.
        "by-hand",
        "1234_Z3RyaWQ=_YnF1YWw=",
        # Of another coordinator over the same resource, and ours but of a resource that lives in this database too.
        Xid(str(Gtrid("otherone", 1, now_ms(), 1)), "accounts.one").gid(),
        Xid(str(Gtrid(ours, 1, now_ms(), 2)), "warehouse.one").gid(),
        # Ours, from an epoch yet to come: this log is a restored copy, and the branch is another's.
        Xid(str(Gtrid(ours, 10_000, now_ms(), 3)), "accounts.one").gid(),
    }
    for gid in gids:
        prepare(bank, gid)
    yield gids
    for gid in prepared(bank):
        accounts.execute(f"ROLLBACK PREPARED '{gid}'".encode(), database=DATABASE)
    accounts.execute(b"DROP TABLE stranger", database=DATABASE)


async def test_branches_of_others_survive_restarts_recovery_and_sweeps(bank: BankStack, foreign: set[str]) -> None:
    for round_number in (1, 2):
        # An orphan of our own says when recovery or the sweep has been by.
        epoch = (await off_loop(bank.admin.status)).epoch
        ours = Gtrid((await off_loop(bank.admin.status)).coordinator_id, epoch, now_ms(), 100 + round_number)
        orphan = Xid(str(ours), "accounts.gone").gid()
        await off_loop(prepare, bank, orphan)
        await off_loop(restart_coordinator, bank)
        await off_loop(restart_service, bank, "accounts")
        await off_loop(wait_until, lambda gid=orphan: gid not in prepared(bank), 10, "the orphan was not ended")
        assert await off_loop(prepared, bank) == foreign


async def test_the_sweep_alone_leaves_them_too(bank: BankStack, foreign: set[str]) -> None:
    status = await off_loop(bank.admin.status)
    orphan = Xid(str(Gtrid(status.coordinator_id, status.epoch, now_ms(), 109)), "accounts.gone").gid()
    await off_loop(prepare, bank, orphan)
    await off_loop(wait_until, lambda: orphan not in prepared(bank), 10, "the orphan was not swept")
    assert await off_loop(prepared, bank) == foreign


async def test_those_of_another_coordinator_are_listed_as_not_ours_with_sql(bank: BankStack, foreign: set[str]) -> None:
    listed = [one for one in (await off_loop(bank.admin.in_doubt)).branches if one.foreign]
    (gid,) = [gid for gid in foreign if gid.startswith("handfast_otherone-")]
    (found,) = listed
    assert (found.branch.gid, found.branch.database) == (gid, DATABASE)
    assert found.command == f"COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}'"
    assert await off_loop(prepared, bank) == foreign
