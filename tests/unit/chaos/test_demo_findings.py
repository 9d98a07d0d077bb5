"""The demo's last word: anything that contradicts atomicity is found, whichever witness saw it."""

from collections.abc import Sequence

import pytest

from chaos.bank_stack import JournalLine, PreparedBranch
from chaos.demo.findings import Findings, differences
from chaos.demo.transfers import Fate, Kind, Result, Transfer, plan
from examples.bank.client import Payment
from handfast.v1 import admin_pb2

MADE = Transfer(Kind.PAY, Payment("made", 1, 2, 30))
REFUSED = Transfer(Kind.AT_ONCE, Payment("refused", 3, 4, 30))
RESULTS = [Result(MADE, Fate.COMMITTED, "g1"), Result(REFUSED, Fate.ABORTED, "g2", "insufficient funds")]
OUT, IN = JournalLine("accounts", 1, "made", 1, -30), JournalLine("ledger", 1, "made", 2, 30)
ATOMIC = admin_pb2.AuditResponse(verdict="atomic")


def found(
    results: Sequence[Result] = RESULTS,
    journal: Sequence[JournalLine] = (OUT, IN),
    prepared: Sequence[PreparedBranch] = (),
    audit: admin_pb2.AuditResponse = ATOMIC,
    money_after: int = 100,
) -> tuple[str, ...]:
    return differences(results, journal, prepared, audit, 100, money_after)


def test_nothing_contradicts_a_run_in_which_all_witnesses_agree() -> None:
    assert found() == ()


@pytest.mark.parametrize("journal", [(OUT,), (IN,), ()], ids=["one side", "the other side", "no side"])
def test_a_committed_transfer_without_both_sides_is_found(journal: tuple[JournalLine, ...]) -> None:
    assert len(found(journal=journal)) == 1


def test_a_transfer_whose_sides_do_not_add_up_is_found() -> None:
    assert len(found(journal=(OUT, JournalLine("ledger", 1, "made", 2, 31)))) == 1


def test_a_trace_of_an_aborted_transfer_is_found() -> None:
    assert len(found(journal=(OUT, IN, JournalLine("ledger", 2, "refused", 4, 30)))) == 1


def test_a_transfer_that_nobody_made_is_found() -> None:
    assert len(found(journal=(OUT, IN, JournalLine("ledger", 2, "forged", 4, 30)))) == 1


def test_an_outcome_that_stays_unknown_is_found() -> None:
    assert len(found(results=[RESULTS[0], Result(REFUSED, Fate.UNKNOWN, "g2")])) == 1


def test_money_that_appeared_or_vanished_is_found() -> None:
    assert len(found(money_after=99)) == 1


def test_a_branch_that_is_still_in_doubt_is_found() -> None:
    assert len(found(prepared=[PreparedBranch("ledger", "gid", 1.0, (4,))])) == 1


@pytest.mark.parametrize("verdict", ["pending", "differs", ""])
def test_an_audit_that_does_not_say_atomic_is_found(verdict: str) -> None:
    assert len(found(audit=admin_pb2.AuditResponse(verdict=verdict))) == 1


def test_the_verdict_is_atomic_only_without_differences() -> None:
    numbers = Findings(
        transfers=2, committed=1, unknown_resolved=0, money_before=100, money_after=100, longest_block_s=1.23456
    )
    assert (numbers.as_json()["verdict"], numbers.as_json()["longest_block_s"]) == ("atomic", 1.235)
    differing = Findings(
        transfers=2,
        committed=1,
        unknown_resolved=0,
        money_before=100,
        money_after=99,
        longest_block_s=1.0,
        differences=("1 cent is gone",),
    )
    assert differing.as_json()["verdict"] == "differs"


def test_no_two_transfers_use_the_same_two_accounts_so_that_they_can_not_deadlock() -> None:
    transfers = plan(1000, accounts=100, balance=1000, seed=1)
    pairs = [(transfer.payment.customer, abs(transfer.payment.merchant)) for transfer in transfers]
    assert len({*pairs}) == 1000


def test_a_small_plan_has_every_kind_of_transfer_and_of_refusal() -> None:
    transfers = plan(50, accounts=100, balance=1000, seed=1)
    assert {transfer.kind for transfer in transfers} == {*Kind}
    assert any(transfer.payment.cents > 1000 for transfer in transfers)
    assert any(transfer.payment.merchant < 0 for transfer in transfers)


def test_the_same_seed_gives_the_same_transfers() -> None:
    assert plan(100, accounts=100, balance=1000, seed=7) == plan(100, accounts=100, balance=1000, seed=7)
