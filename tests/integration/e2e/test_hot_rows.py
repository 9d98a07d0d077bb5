"""Many transactions over few rows of two databases: they end, cleanly, and nothing is lost or left behind."""

import asyncio
from collections import Counter

import grpc.aio
import pytest

import handfast
from chaos.stack import wait_until
from examples.bank.v1.accounts_pb2 import DepositRequest
from participant import ParticipantOptions
from tests.integration.e2e.bank_world import off_loop
from tests.integration.e2e.shops import ACCOUNTS, BALANCE, Shop, Shops

TRANSACTIONS = 200
HOT_ROWS = 10
OPTIONS = ParticipantOptions(connections_max=40, lock_timeout_s=0.5, register_interval_s=5)


async def move(shops: Shops, source: Shop, target: Shop, number: int) -> str:
    """Move a cent from one database to the other; the rows are among the hot ones. Returns how it ended."""
    try:
        async with shops.tm.transaction(timeout=30):
            await source.withdraw(1, account=number % HOT_ROWS + 1, transfer=f"t-{number}")
            deposit = DepositRequest(account=number * 3 % HOT_ROWS + 1, amount=1, transfer=f"t-{number}")
            await target.stub.Deposit(deposit)
    except grpc.aio.AioRpcError as refusal:
        return "lock timeout" if "lock timeout" in (refusal.details() or "") else repr(refusal)
    except handfast.TransactionAborted as aborted:
        return aborted.reason_code
    return "committed"


async def open_two(shops: Shops) -> tuple[Shop, Shop]:
    return await shops.open_one("hot-1", options=OPTIONS), await shops.open_one("hot-2", options=OPTIONS)


def money(shops: Shops, opened: tuple[Shop, Shop]) -> int:
    return sum(int(shops.fetch(shop, "SELECT sum(balance) FROM account")[0][0]) for shop in opened)


def stuck_sessions(shops: Shops) -> list[object]:
    query = b"SELECT state, query FROM pg_stat_activity WHERE datname LIKE 'hot-%' AND state <> 'idle'"
    return [*shops.cluster.fetch(query)]


async def test_two_hundred_transactions_on_ten_hot_rows_end_cleanly(shops: Shops) -> None:
    first, second = opened = await open_two(shops)
    ends = Counter(
        await asyncio.gather(
            *(
                move(shops, *((first, second) if number % 2 else (second, first)), number)
                for number in range(TRANSACTIONS)
            )
        )
    )
    assert ends.total() == TRANSACTIONS
    assert set(ends) <= {"committed", "lock timeout"}, ends
    assert ends["committed"] > 0
    assert money(shops, opened) == 2 * ACCOUNTS * BALANCE
    lines = shops.fetch(first, "SELECT count(*) FROM journal") + shops.fetch(second, "SELECT count(*) FROM journal")
    assert [count for (count,) in lines] == [ends["committed"]] * 2
    assert shops.prepared() == []
    await off_loop(wait_until, lambda: stuck_sessions(shops) == [], 5, "a session is stuck")

    # No connection was lost on the way: as many transactions as there are connections can work at once.
    assert {await move(shops, first, second, 10_000)} == {"committed"}


async def test_two_hundred_one_shot_transactions_on_ten_hot_rows_end_cleanly(shops: Shops) -> None:
    opened = await open_two(shops)

    async def move_at_once(number: int) -> str:
        withdraw = DepositRequest(account=number % HOT_ROWS + 1, amount=1, transfer=f"t-{number}").SerializeToString()
        deposit = DepositRequest(account=number * 3 % HOT_ROWS + 1, amount=1, transfer=f"t-{number}")
        work = [("hot-1", "withdraw", withdraw), ("hot-2", "deposit", deposit.SerializeToString())]
        try:
            await shops.tm.execute(work, timeout=30)
        except handfast.TransactionAborted as aborted:
            return aborted.reason_code
        return "committed"

    ends = Counter(await asyncio.gather(*(move_at_once(number) for number in range(TRANSACTIONS))))
    assert set(ends) <= {"committed", "LOCK_TIMEOUT"}, ends
    assert ends["committed"] > 0
    assert money(shops, opened) == 2 * ACCOUNTS * BALANCE
    assert shops.prepared() == []


async def test_a_deadlock_across_two_databases_ends_by_lock_timeout(shops: Shops) -> None:
    first, second = opened = await open_two(shops)
    both_hold_one = asyncio.Barrier(2)

    async def cross(mine: Shop, other: Shop, name: str) -> str:
        try:
            async with shops.tm.transaction(timeout=20):
                await mine.withdraw(1, transfer=name)
                await both_hold_one.wait()
                await other.withdraw(1, transfer=name)
        except grpc.aio.AioRpcError as refusal:
            return "lock timeout" if "lock timeout" in (refusal.details() or "") else repr(refusal)
        return "committed"

    ends = sorted(await asyncio.gather(cross(first, second, "there"), cross(second, first, "back")))
    assert ends in (["lock timeout", "lock timeout"], ["committed", "lock timeout"])
    assert money(shops, opened) == 2 * ACCOUNTS * BALANCE - 2 * ends.count("committed")
    assert await move(shops, first, second, 1) == "committed"


@pytest.mark.parametrize("direction", ["there", "back"])
async def test_a_waiter_gets_the_row_as_soon_as_the_holder_has_committed(shops: Shops, direction: str) -> None:
    first, second = await open_two(shops)
    pair = (first, second) if direction == "there" else (second, first)
    ends = await asyncio.gather(*(move(shops, *pair, number * HOT_ROWS) for number in range(8)))
    assert set(ends) <= {"committed", "lock timeout"}
    assert "committed" in ends
