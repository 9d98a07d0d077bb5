"""A participant in "any language": three unary calls over plain grpcio. It takes part, aborts, and is recovered."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

import handfast
from chaos.stack import PostgresCluster, Stack, free_port, wait_until
from examples.bank.v1.accounts_pb2 import WithdrawRequest
from handfast.v1 import coordinator_pb2 as c
from handfast.v1.coordinator_pb2_grpc import CoordinatorStub
from tests.integration.e2e.bank_world import off_loop
from tests.integration.e2e.plain_participant import PlainParticipant, serving
from tests.integration.e2e.processes import Coordinator
from tests.integration.e2e.shops import BALANCE, Shop, Shops

ANNOUNCED = pytest.mark.parametrize("announced", ["by-register", "by-configuration"])


@dataclass(frozen=True, slots=True)
class Stage:
    """A coordinator, the plain participant, and a shop of the SDK."""

    coordinator: Coordinator
    plain: PlainParticipant
    shops: Shops
    shop: Shop

    async def execute(self, cents_plain: int = 10, cents_shop: int = 10) -> handfast.OutcomeReport:
        """Take money out of both."""
        payload = WithdrawRequest(account=1, amount=cents_shop, transfer="one-shot").SerializeToString()
        work = [("plain", "take", str(cents_plain).encode()), ("shop-1", "withdraw", payload)]
        result = await self.shops.tm.execute(work, timeout=10)
        return await self.shops.tm.outcome(result.gtrid)

    def held(self) -> tuple[int, int]:
        """What the two accounts hold."""
        query = b"SELECT balance FROM account WHERE id = 1"
        return int(self.shops.cluster.fetch(query, database="plain")[0][0]), self.shops.held(self.shop)


@pytest.fixture(scope="session")
def plain_dsn(shop_databases: Shops) -> str:
    cluster: PostgresCluster = shop_databases.cluster
    return cluster.create_database("plain")


@pytest.fixture
def plain(plain_dsn: str, shop_databases: Shops) -> PlainParticipant:
    cluster = shop_databases.cluster
    cluster.execute(b"DROP TABLE IF EXISTS account", database="plain")
    table = "CREATE TABLE account AS SELECT 1 AS id, 1000 AS balance"
    cluster.execute(table.encode(), database="plain")
    cluster.execute(b"ALTER TABLE account ADD CHECK (balance >= 0)", database="plain")
    return PlainParticipant(plain_dsn)


@pytest.fixture
def failpoint() -> str:
    return ""


@pytest.fixture
def coordinator(announced: str, failpoint: str, plain: PlainParticipant, tmp_path: Path) -> Iterator[Coordinator]:
    """A coordinator that knows of the plain participant, one way or the other."""
    address = f"127.0.0.1:{free_port()}"
    flags = ["--participant", f"plain={address}"] if announced == "by-configuration" else []
    with Stack() as stack, serving(plain, address):
        one = stack.start(Coordinator(tmp_path, "--retry-cap-s", "0.5", *flags, failpoint=failpoint))
        if announced == "by-register":
            with grpc.insecure_channel(one.address) as channel:
                request = c.RegisterRequest(resource="plain", instance="p1", address=address, kind="plain")
                stub: Any = CoordinatorStub  # which serves channels that block as well, whatever its annotation says
                stub(channel).Register(request)
        wait_until(lambda: one.admin.participants()[0].reachable, 5, "the plain participant is not reached")
        yield one


@pytest.fixture
async def stage(coordinator: Coordinator, plain: PlainParticipant, shop_databases: Shops) -> AsyncIterator[Stage]:
    async with shop_databases.at(coordinator.address) as shops:
        (shop,) = await shops.open("shop-1")
        yield Stage(coordinator, plain, shops, shop)
    assert shop_databases.prepared() == []


@ANNOUNCED
async def test_it_commits_with_a_participant_of_the_sdk(stage: Stage) -> None:
    report = await stage.execute()
    assert report.outcome is handfast.Outcome.COMMITTED
    assert stage.held() == (1000 - 10, BALANCE - 10)
    assert stage.plain.calls == ["Prepare", "Commit"]


@ANNOUNCED
async def test_it_is_rolled_back_when_another_says_no(stage: Stage) -> None:
    with pytest.raises(handfast.TransactionAborted, match="holds less"):
        await stage.execute(cents_shop=BALANCE + 1)
    await off_loop(wait_until, lambda: stage.shops.prepared() == [], 5, "it is still prepared")
    assert stage.held() == (1000, BALANCE)


@pytest.mark.parametrize("announced", ["by-register"])
async def test_its_no_rolls_the_others_back_and_its_reason_reaches_the_client(stage: Stage) -> None:
    with pytest.raises(handfast.TransactionAborted, match="violates check constraint") as aborted:
        await stage.execute(cents_plain=1001)
    assert aborted.value.branch == "plain.p1"
    assert stage.held() == (1000, BALANCE)


@pytest.mark.parametrize("announced", ["by-register"])
async def test_alone_it_commits_without_knowing_of_one_phase(stage: Stage) -> None:
    await stage.shops.tm.execute([("plain", "take", b"10")], timeout=5)
    assert stage.held() == (1000 - 10, BALANCE)
    assert stage.plain.calls == ["Prepare", "Commit"]


@ANNOUNCED
@pytest.mark.parametrize("failpoint", ["after-force"])
async def test_a_coordinator_that_was_killed_finishes_its_branch(stage: Stage) -> None:
    executing = asyncio.create_task(stage.execute())
    await off_loop(stage.coordinator.wait, 10)
    assert len(stage.shops.prepared()) == 2
    stage.coordinator.env["HANDFAST_FAILPOINT"] = ""
    await off_loop(stage.coordinator.start)
    assert (await executing).outcome is handfast.Outcome.COMMITTED
    assert stage.held() == (1000 - 10, BALANCE - 10)


@pytest.mark.parametrize("announced", ["by-register"])
@pytest.mark.parametrize("failpoint", ["before-force"])
async def test_an_undecided_branch_is_its_own_to_ask_about(stage: Stage) -> None:
    """Without Recover nobody can list its branches; it can ask, and is told to roll back."""
    executing = asyncio.create_task(stage.execute())
    await off_loop(stage.coordinator.wait, 10)
    ((gid,),) = stage.shops.cluster.fetch(b"SELECT gid FROM pg_prepared_xacts WHERE gid LIKE 'plain/%'")
    stage.coordinator.env["HANDFAST_FAILPOINT"] = ""
    await off_loop(stage.coordinator.start)
    with pytest.raises(handfast.TransactionAborted):
        await executing
    _, gtrid, bqual = gid.split("/")
    async with grpc.aio.insecure_channel(stage.coordinator.address) as channel:
        answer = await CoordinatorStub(channel).Inquire(c.InquireRequest(gtrid=gtrid, bqual=bqual))
    assert answer.standing == c.STANDING_ABORT
    stage.shops.cluster.execute(f"ROLLBACK PREPARED '{gid}'".encode(), database="plain")
    assert stage.held() == (1000, BALANCE)
