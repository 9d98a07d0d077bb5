"""What the guides show can be run as well."""

from __future__ import annotations

import re

import pytest

import handfast
from chaos.bank_stack import BankStack
from examples.bank.v1 import accounts_pb2, ledger_pb2
from examples.bank.v1.accounts_pb2_grpc import AccountsStub
from examples.bank.v1.ledger_pb2_grpc import LedgerStub
from participant import ParticipantOptions
from tests.architecture.source_tree import REPOSITORY
from tests.docs.commands import run_block
from tests.docs.pages import block_with

DOCS = REPOSITORY / "docs"
BANK_NAMES = {
    "AccountsStub": AccountsStub,
    "LedgerStub": LedgerStub,
    "WithdrawRequest": accounts_pb2.WithdrawRequest,
    "CreditRequest": ledger_pb2.CreditRequest,
}


async def test_the_service_guides_test_passes() -> None:
    block = block_with(DOCS / "guide-service.md", "FakeCoordinator() as coordinator", "python")
    assert "assert resource.rows" in block.text
    await (await run_block(block, {}, {}))["test_a_withdrawal_is_applied_at_commit_only"]()


async def test_the_client_guides_transfer_commits(bank: BankStack, bank_ports: dict[str, str]) -> None:
    block = block_with(DOCS / "guide-client.md", "async def transfer", "python")
    space = await run_block(block, bank_ports, BANK_NAMES)
    withdraw = accounts_pb2.WithdrawRequest(account=7, amount=250, transfer="t-1")
    await space["transfer"](withdraw, ledger_pb2.CreditRequest(account=3, amount=250, transfer="t-1"))
    assert bank.money() == {"accounts": 99_750, "ledger": 100_250}


async def test_the_client_guides_one_shot_commits(bank: BankStack) -> None:
    block = block_with(DOCS / "guide-client.md", "result.results", "python")
    async with handfast.connect(bank.client_addresses()["coordinator"]) as tm:
        space = await run_block(block, {}, {**BANK_NAMES, "tm": tm})
    assert space["result"].outcome is handfast.Outcome.COMMITTED


def test_the_client_guide_draws_the_tree_of_errors_as_it_is() -> None:
    text = (DOCS / "guide-client.md").read_text(encoding="utf-8")
    drawn = re.findall(r"^(?:[│├└─ ]*)(\w+)$", text[text.index("```\nHandfastError") :].split("```")[1], re.MULTILINE)
    errors = {name for name in handfast.__all__ if _is_error(getattr(handfast, name))}
    assert set(drawn) == errors


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, handfast.HandfastError)


def test_the_service_guide_gives_the_options_defaults() -> None:
    text = (DOCS / "guide-service.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| `(\w+_(?:s|max))` \| (\d+) \|", text, re.MULTILINE))
    options = ParticipantOptions()
    assert len(shown) >= 7
    assert {name: float(number) for name, number in shown.items()} == {name: getattr(options, name) for name in shown}


@pytest.mark.parametrize("path", ["examples/any_language/points.py"])
def test_the_participant_is_shown_as_it_is(path: str) -> None:
    block = block_with(DOCS / "guide-any-language.md", "class Points", "python")
    assert block.text == (REPOSITORY / path).read_text(encoding="utf-8").partition('"""\n\n')[2]
