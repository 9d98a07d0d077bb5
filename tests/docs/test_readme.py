"""The README's Python does what the README says: each block is run, against real databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import psycopg
import pytest

import handfast
from chaos.bank_stack import BankStack
from chaos.stack import ManagedProcess, Stack, free_port, python_module, wait_until
from examples.bank.v1 import accounts_pb2, ledger_pb2
from examples.bank.v1.accounts_pb2_grpc import AccountsServicer, AccountsStub, add_AccountsServicer_to_server
from examples.bank.v1.ledger_pb2_grpc import LedgerStub
from tests.architecture.source_tree import REPOSITORY
from tests.docs.commands import moved, replay, run, run_block
from tests.docs.pages import README, Block, block_with, blocks, session

APPLICATION = block_with(README, "tm.transaction(timeout=5)", "python")
SERVICE = block_with(README, "class Accounts(AccountsServicer)", "python")
ONE_SHOT = block_with(README, "other_payload", "python")
SHOP_SERVICE = block_with(README, "async def serve(", "python")
SHOP_ORDER = block_with(README, "async def order(", "python")
SHOP_STARTS = block_with(README, "examples.shop.databases", "sh")
SHOP_CRASH = block_with(README, "HANDFAST_FAILPOINT", "sh")
SHOP_ORDERS = block_with(README, "order o-4 lamp", "console")

SHOP_READY_S_MAX = 20.0


@asynccontextmanager
async def stubs(accounts: str, ledger: str) -> Any:
    """Stubs whose channels carry the transaction along, as the README says."""
    async with (
        grpc.aio.insecure_channel(accounts, interceptors=handfast.client_interceptors()) as first,
        grpc.aio.insecure_channel(ledger, interceptors=handfast.client_interceptors()) as second,
    ):
        yield {
            "accounts": AccountsStub(first),
            "ledger": LedgerStub(second),
            "WithdrawRequest": accounts_pb2.WithdrawRequest,
            "CreditRequest": ledger_pb2.CreditRequest,
        }


def balances(bank: BankStack) -> tuple[int, int]:
    """What the customer and the merchant of the README have."""
    query = "SELECT balance FROM account WHERE id = "
    customer = bank.databases["accounts"].fetch(f"{query}7".encode(), database="bank")[0][0]
    merchant = bank.databases["ledger"].fetch(f"{query}3".encode(), database="bank")[0][0]
    return customer, merchant


def test_every_python_block_of_the_readme_is_run_here() -> None:
    run_here = [APPLICATION, SERVICE, ONE_SHOT, SHOP_SERVICE, SHOP_ORDER]
    assert blocks(README, "python") == run_here


async def test_the_application_moves_the_money(
    bank: BankStack, bank_ports: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    here = bank.client_addresses()
    async with stubs(here["accounts"], here["ledger"]) as names:
        await run_block(APPLICATION, bank_ports, names)
    assert capsys.readouterr().out == "COMMITTED\n"
    assert balances(bank) == (750, 1250)


async def test_the_one_shot_form_does_the_same(bank: BankStack, bank_ports: dict[str, str]) -> None:
    payload = accounts_pb2.WithdrawRequest(account=7, amount=250, transfer="t-1").SerializeToString()
    other = ledger_pb2.CreditRequest(account=3, amount=250, transfer="t-1").SerializeToString()
    async with handfast.connect(bank.client_addresses()["coordinator"]) as tm:
        names = await run_block(ONE_SHOT, bank_ports, {"tm": tm, "payload": payload, "other_payload": other})
    assert names["result"].outcome is handfast.Outcome.COMMITTED
    assert balances(bank) == (750, 1250)


async def test_the_service_joins_its_callers_transaction(bank: BankStack, bank_ports: dict[str, str]) -> None:
    """The README's service takes part as a second instance of `accounts`, over the same database."""
    address = f"127.0.0.1:{free_port()}"
    names = {
        "dsn": bank.databases["accounts"].dsn("bank"),
        "AccountsServicer": AccountsServicer,
        "WithdrawResponse": accounts_pb2.WithdrawResponse,
    }
    space = await run_block(SERVICE, bank_ports | {"127.0.0.1:7501": address}, names)
    participant = space["participant"]
    server = grpc.aio.server(interceptors=participant.interceptors())
    add_AccountsServicer_to_server(space["Accounts"](), server)
    participant.add_to_server(server)
    server.add_insecure_port(address)
    await server.start()
    async with participant, stubs(address, bank.client_addresses()["ledger"]) as called:
        await run_block(APPLICATION, bank_ports, called)
    await server.stop(None)
    assert balances(bank) == (750, 1250)


@pytest.mark.parametrize(("block", "path"), [(SHOP_SERVICE, "service.py"), (SHOP_ORDER, "order.py")], ids=str)
def test_the_shop_is_shown_as_it_is(block: Block, path: str) -> None:
    text = (REPOSITORY / "examples" / "shop" / path).read_text(encoding="utf-8")
    assert block.text == text.partition("\n\n")[2]  # all but its docstring


# -- the shop, started by the README's own lines ---------------------------------------------------------------------


class Shop:
    """What the README has its reader start, each line as a process. Ports differ, and nothing else."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.folder = folder
        self.env = {"HANDFAST_ADDRESS": f"127.0.0.1:{free_port()}"}
        numbers = {shown: str(free_port()) for shown in ("5501", "5502", "7511", "7512")}
        self.ports = {f":{shown}": f":{real}" for shown, real in numbers.items()}
        self.ports |= {f" {shown}\n": f" {real}\n" for shown, real in numbers.items()}
        server = "postgresql://postgres@127.0.0.1"
        self.at_first = {
            f"{server}:{numbers['5501']}/stock": b"UPDATE stock SET amount = 3",
            f"{server}:{numbers['5502']}/orders": b"DELETE FROM orders",
        }
        lines = [line.partition("#")[0].strip() for line in SHOP_STARTS.text.splitlines()]
        databases, serve, stock, orders = (moved(f"{line}\n", self.ports).split() for line in lines)
        databases += [numbers["5501"], numbers["5502"]]
        self.databases = self._process("databases", databases, "Ctrl-C ends both")
        self.coordinator = self._process("coordinator", serve, "handfast is ready at")
        self.services = [self._process(one[3], one, f"{one[3]} is ready") for one in (stock, orders)]
        for process in (self.databases, self.coordinator, *self.services):
            stack.start(process)
        wait_until(self.complete, SHOP_READY_S_MAX, "both services are registered and reached")

    def _process(self, name: str, words: list[str], ready: str) -> ManagedProcess:
        assert words[0] in {".venv/bin/python", ".venv/bin/handfast"}
        argv = python_module("coordinator", *words[1:]) if words[0].endswith("handfast") else python_module(*words[2:])
        return ManagedProcess(
            name,
            argv,
            log=self.folder / f"{name}.log",
            env=self.env,
            cwd=self.folder,
            ready=ready,
            ready_timeout_s=SHOP_READY_S_MAX,
        )

    def complete(self) -> bool:
        return run(".venv/bin/handfast participants --json", self.folder, self.env).count('"reachable": true') == 2


@pytest.fixture(scope="module")
def open_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Stack() as stack:
        yield Shop(stack, tmp_path_factory.mktemp("shop"))


@pytest.fixture
def shop(open_shop: Shop) -> Shop:
    """The shop as it was at first: three lamps, and no orders."""
    for dsn, change in open_shop.at_first.items():
        with psycopg.connect(dsn) as connection:
            connection.execute(change)
    return open_shop


def test_the_shop_sells_three_lamps_and_refuses_the_fourth(shop: Shop) -> None:
    printed = replay(SHOP_ORDERS, shop.ports, shop.folder, shop.env)
    assert printed[:4] == [command.output for command in session(SHOP_ORDERS)][:4]
    assert printed[4].count("COMMITTED") == 3


def test_an_order_survives_the_coordinators_death_at_the_worst_moment(shop: Shop) -> None:
    crash, order, restart = (line.partition("#")[0].split() for line in SHOP_CRASH.text.splitlines())
    variable, _, failpoint = crash[0].partition("=")
    shop.coordinator.stop()
    shop.coordinator.env[variable] = failpoint
    shop.coordinator.start()
    wait_until(shop.complete, SHOP_READY_S_MAX, "both services are registered and reached")
    ordering = ManagedProcess("order", python_module(*order[2:]), log=shop.folder / "order.log", env=shop.env)
    ordering.start()
    try:
        assert shop.coordinator.wait(SHOP_READY_S_MAX) == -9
        shop.coordinator.env[variable] = ""
        assert restart[1:] == ["serve"]
        shop.coordinator.start()
        assert ordering.wait(SHOP_READY_S_MAX) == 0
    finally:
        ordering.close()
    assert "COMMITTED" in ordering.output()
    assert "ATOMIC" in run(".venv/bin/handfast audit", shop.folder, shop.env)
