"""What is set up wrongly is told clearly, in the catalog's words, to whoever can mend it; and nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest

import handfast
from chaos.bank_stack import BankStack
from chaos.stack import ManagedProcess, PostgresCluster, Stack, free_port, python_module
from examples.bank.v1.accounts_pb2 import WithdrawRequest
from handfast.catalog import ENTRIES
from handfast.v1 import coordinator_pb2 as c
from handfast.v1.coordinator_pb2_grpc import CoordinatorStub
from tests.integration.e2e.bank_world import off_loop
from tests.integration.e2e.processes import REPOSITORY, Coordinator
from tests.integration.e2e.shops import BALANCE, Shops

PAYLOAD = WithdrawRequest(account=1, amount=10, transfer="one-shot").SerializeToString()


def work(*resources: str) -> list[tuple[str, str, bytes]]:
    return [(resource, "withdraw", PAYLOAD) for resource in resources]


# -- databases ---------------------------------------------------------------------------------------------------------


async def test_a_postgres_without_slots_says_which_setting_to_change(shops: Shops, slotless: PostgresCluster) -> None:
    (shop,) = await shops.open("shop-1")
    other = await shops.open_one("slotless", cluster=slotless)
    with pytest.raises(handfast.TransactionAborted, match="has max_prepared_transactions = 0") as aborted:
        await shops.tm.execute(work("shop-1", "slotless"), timeout=5)
    assert (aborted.value.branch, aborted.value.reason_code) == (other.participant.bqual, "PREPARED_DISABLED")
    assert "Set max_prepared_transactions to at least max_connections" in aborted.value.mend
    assert [shops.held(one) for one in (shop, other)] == [BALANCE] * 2


async def test_a_postgres_whose_slots_are_full_says_so(shops: Shops, e2e_stack: Stack) -> None:
    tight = e2e_stack.start(PostgresCluster("tight", e2e_stack.path, max_prepared_transactions=1, fsync=False))
    with tight.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE squatter ()")
        connection.execute("PREPARE TRANSACTION 'squatter'")
    (shop,) = await shops.open("shop-1")
    other = await shops.open_one("tight", cluster=tight)
    with pytest.raises(handfast.TransactionAborted, match="has no free slot") as aborted:
        await shops.tm.execute(work("shop-1", "tight"), timeout=5)
    assert aborted.value.reason_code == "SLOTS_EXHAUSTED"
    assert "Raise max_prepared_transactions" in aborted.value.mend

    tight.execute(b"ROLLBACK PREPARED 'squatter'")
    await shops.tm.execute(work("shop-1", "tight"), timeout=5)
    assert [shops.held(one) for one in (shop, other)] == [BALANCE - 10] * 2


async def test_a_role_without_rights_says_which(shops: Shops) -> None:
    teller = shops.cluster.dsn("shop-2", user="teller")
    roles = b"SELECT 1 FROM pg_roles WHERE rolname = 'teller'"
    if not shops.cluster.fetch(roles):
        shops.cluster.execute(b"CREATE ROLE teller LOGIN")
    (shop,) = await shops.open("shop-1")
    await shops.open_one("shop-2", dsn=teller)
    with pytest.raises(handfast.TransactionAborted, match="permission denied for table account") as aborted:
        await shops.tm.execute(work("shop-1", "shop-2"), timeout=5)
    assert aborted.value.reason_code == "ROLE_LACKS_RIGHTS"
    assert shops.held(shop) == BALANCE


# -- participants ------------------------------------------------------------------------------------------------------


async def test_a_participant_whose_address_is_dead_aborts_the_transaction(
    shops: Shops, bank: BankStack, shop_databases: Shops
) -> None:
    (shop,) = await shops.open("shop-1")
    nowhere = f"127.0.0.1:{free_port()}"
    async with grpc.aio.insecure_channel(bank.listening("coordinator")) as channel:
        await CoordinatorStub(channel).Register(c.RegisterRequest(resource="ghost", instance="g1", address=nowhere))
    with pytest.raises(handfast.TransactionAborted, match=f"{nowhere} can't be reached") as aborted:
        await shops.tm.execute(work("shop-1", "ghost"), timeout=3)
    assert (aborted.value.branch, aborted.value.reason_code) == ("ghost.g1", "VOTE_LOST")
    assert shops.held(shop) == BALANCE
    assert shop_databases.prepared() == []
    ghosts = [one for one in await off_loop(bank.admin.participants) if one.resource == "ghost"]
    assert [one.reachable for one in ghosts] == [False]


async def test_a_resource_nobody_serves_and_an_operation_nobody_registered_are_named(shops: Shops) -> None:
    (shop,) = await shops.open("shop-1")
    with pytest.raises(handfast.Refused, match="No participant has registered the resource 'warehouse'"):
        await shops.tm.execute(work("shop-1", "warehouse"), timeout=3)
    with pytest.raises(handfast.TransactionAborted, match=r"has no operation 'steal'.*deposit, withdraw"):
        await shops.tm.execute([("shop-1", "steal", b"")], timeout=3)
    assert shops.held(shop) == BALANCE


# -- the coordinator's process -----------------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Coordinator]:
    with Stack() as stack:
        yield stack.start(Coordinator(tmp_path))


def refusal_of(tmp_path: Path, *flags: str) -> str:
    """What `handfast serve` says when it does not start; its exit code is 1."""
    process = ManagedProcess(
        "refused", python_module("coordinator", "serve", *flags), log=tmp_path / "refused.log", cwd=REPOSITORY
    )
    process.start()
    assert process.wait(15) == 1, process.output()
    return " ".join(process.output().split())


def mend_of(code: str) -> str:
    """How the catalog's advice on an error begins."""
    return ENTRIES[code].mend.partition("{")[0].strip()


def test_a_second_coordinator_on_the_same_log_is_refused(running: Coordinator, tmp_path: Path) -> None:
    said = refusal_of(tmp_path, "--address", "127.0.0.1:0", "--log", str(tmp_path / "handfast.db"))
    assert "is in use by another coordinator" in said
    assert mend_of("LOG_LOCKED") in said
    assert running.admin.answers()


def test_a_port_in_use_is_refused_and_the_log_stays_free(running: Coordinator, tmp_path: Path) -> None:
    said = refusal_of(tmp_path, "--address", running.address, "--log", str(tmp_path / "other.db"))
    assert f"The address {running.address} can't be listened on" in said
    assert mend_of("ADDRESS_IN_USE") in said


def test_a_log_of_another_coordinator_is_refused(running: Coordinator, tmp_path: Path) -> None:
    running.stop()
    log = ("--log", str(tmp_path / "handfast.db"))
    said = refusal_of(tmp_path, "--address", "127.0.0.1:0", *log, "--coordinator-id", "abcdefgh")
    assert "belongs to coordinator" in said
    assert "not abcdefgh" in said


@pytest.mark.parametrize(
    ("log", "code"),
    [("missing/folder/handfast.db", "LOG_PATH_UNUSABLE"), (".", "LOG_PATH_UNUSABLE"), ("garbage.db", "LOG_CORRUPT")],
)
def test_a_log_that_cannot_be_used_is_refused_with_what_to_do(tmp_path: Path, log: str, code: str) -> None:
    (tmp_path / "garbage.db").write_bytes(b"this is no database at all\n" * 500)
    said = refusal_of(tmp_path, "--address", "127.0.0.1:0", "--log", str(tmp_path / log))
    assert str(tmp_path / log) in said
    assert mend_of(code) in said
