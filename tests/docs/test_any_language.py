"""A transaction driven with `buf curl` alone, as the README's section "Any language" and the guide show it."""

from __future__ import annotations

import json

from chaos.bank_stack import BankStack
from tests.architecture.source_tree import REPOSITORY
from tests.docs.commands import replay
from tests.docs.pages import README, block_with, session

STEP_BY_STEP = block_with(README, "Coordinator/Begin", "console")
AT_ONCE = block_with(REPOSITORY / "docs" / "guide-any-language.md", "Coordinator/Execute", "console")


def test_begin_the_calls_and_commit_go_as_shown(bank: BankStack, bank_ports: dict[str, str]) -> None:
    printed = replay(STEP_BY_STEP, bank_ports, REPOSITORY)
    assert [json.loads(text) for text in printed] == [json.loads(command.output) for command in session(STEP_BY_STEP)]
    assert bank.money() == {"accounts": 99_750, "ledger": 100_250}


def test_execute_goes_as_shown_after_it(bank: BankStack, bank_ports: dict[str, str]) -> None:
    replay(STEP_BY_STEP, bank_ports, REPOSITORY)
    printed = replay(AT_ONCE, bank_ports, REPOSITORY)
    assert [json.loads(text) for text in printed] == [json.loads(command.output) for command in session(AT_ONCE)]
    assert bank.money() == {"accounts": 99_500, "ledger": 100_500}
