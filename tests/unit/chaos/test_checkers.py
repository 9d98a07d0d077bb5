"""Each checker accepts every right history and rejects each wrong one. The histories are seeded, so that a checker
can't be right by luck about one of them."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from chaos.bank_stack import JournalLine
from chaos.checkers import CHECKERS, check
from chaos.evidence import Evidence
from chaos.history import Status
from chaos.observers import InDoubt
from tests.unit.chaos.runs import a_call, right_evidence, with_call, with_journal

SEEDS = range(20)

Spoil = Callable[[Evidence, random.Random], Evidence]


def lose_one_side(evidence: Evidence, draw: random.Random) -> Evidence:
    lost = draw.choice(evidence.journal)
    return with_journal(evidence, [line for line in evidence.journal if line != lost])


def apply_one_side_of_an_abort(evidence: Evidence, draw: random.Random) -> Evidence:
    call = a_call(evidence, lambda call: call.known is Status.FAIL, draw)
    return with_journal(evidence, [*evidence.journal, JournalLine("ledger", 9999, call.transfer, 1, call.cents)])


def apply_both_sides_of_an_abort(evidence: Evidence, draw: random.Random) -> Evidence:
    call = a_call(evidence, lambda call: call.known is Status.FAIL, draw)
    sides = [
        JournalLine("accounts", 9999, call.transfer, 1, -call.cents),
        JournalLine("ledger", 9999, call.transfer, 1, call.cents),
    ]
    return with_journal(evidence, [*evidence.journal, *sides])


def lose_a_committed_transfer(evidence: Evidence, draw: random.Random) -> Evidence:
    call = a_call(evidence, lambda call: call.known is Status.OK, draw)
    return with_journal(evidence, [line for line in evidence.journal if line.transfer != call.transfer])


def change_an_amount(evidence: Evidence, draw: random.Random) -> Evidence:
    changed = draw.choice(evidence.journal)
    return with_journal(
        evidence, [replace(line, cents=line.cents + 1) if line == changed else line for line in evidence.journal]
    )


def invent_a_transfer(evidence: Evidence, draw: random.Random) -> Evidence:
    sides = [JournalLine("accounts", 9999, "nobody's", 1, -5), JournalLine("ledger", 9999, "nobody's", 1, 5)]
    return with_journal(evidence, [*evidence.journal, *sides])


def write_a_balance_past_the_journal(evidence: Evidence, draw: random.Random) -> Evidence:
    after = {"accounts": evidence.money_after["accounts"] - 3, "ledger": evidence.money_after["ledger"] + 3}
    return replace(evidence, money_after=after)


def print_money(evidence: Evidence, draw: random.Random) -> Evidence:
    return replace(evidence, money_after={**evidence.money_after, "ledger": evidence.money_after["ledger"] + 1})


def let_the_log_forget_a_commit(evidence: Evidence, draw: random.Random) -> Evidence:
    call = a_call(evidence, lambda call: call.known is Status.OK, draw)
    return replace(evidence, logged={gtrid: end for gtrid, end in evidence.logged.items() if gtrid != call.gtrid})


def let_the_log_abort_a_commit(evidence: Evidence, draw: random.Random) -> Evidence:
    call = a_call(evidence, lambda call: call.known is Status.OK, draw)
    return replace(evidence, logged={**evidence.logged, call.gtrid: "ABORTED"})


def let_the_log_commit_an_abort(evidence: Evidence, draw: random.Random) -> Evidence:
    call = a_call(evidence, lambda call: call.known is Status.FAIL, draw)
    return replace(evidence, logged={**evidence.logged, call.gtrid: "COMMITTED"})


def tell_a_client_otherwise_later(evidence: Evidence, draw: random.Random) -> Evidence:
    call = a_call(evidence, lambda call: call.status is Status.OK, draw)
    return with_call(evidence, call, resolved=Status.FAIL)


def leave_a_client_in_the_dark(evidence: Evidence, draw: random.Random) -> Evidence:
    call = a_call(evidence, lambda call: call.status is Status.INFO, draw)
    return with_call(evidence, call, resolved=None)


def commit_in_opposite_orders(evidence: Evidence, draw: random.Random) -> Evidence:
    """Two transfers between the same two accounts: one first here, the other first there."""
    both = [call.transfer for call in evidence.calls if call.known is Status.OK][:2]
    lines = {"accounts": (9001, 9002), "ledger": (9002, 9001)}
    moved = []
    for line in evidence.journal:
        if line.transfer in both:
            line = replace(line, account=1, line=lines[line.database][both.index(line.transfer)])
        moved.append(line)
    return replace(evidence, journal=moved)


def leave_a_branch_in_doubt_for_a_minute(evidence: Evidence, draw: random.Random) -> Evidence:
    late = InDoubt("ledger", "g-1", start_s=40.0, end_s=evidence.healed_s + 30.1)
    return replace(evidence, in_doubt=[late], ended_s=late.end_s or 0.0)


def leave_a_branch_prepared(evidence: Evidence, draw: random.Random) -> Evidence:
    return replace(evidence, left_prepared=["ledger: handfast_g-1_ledger.a"])


def let_the_audit_differ(evidence: Evidence, draw: random.Random) -> Evidence:
    return replace(evidence, audit_verdict="differs", audit_differences=["g-1: log COMMITTED, resource aborted"])


def let_the_traces_break_a_rule(evidence: Evidence, draw: random.Random) -> Evidence:
    return replace(evidence, trace_broken=["trace.jsonl:7: one decision: a second decision is offered to the log"])


WRONG: list[tuple[Spoil, str]] = [
    (lose_one_side, "one outcome everywhere"),
    (lose_one_side, "money is conserved"),
    (apply_one_side_of_an_abort, "one outcome everywhere"),
    (apply_both_sides_of_an_abort, "one outcome everywhere"),
    (lose_a_committed_transfer, "one outcome everywhere"),
    (change_an_amount, "one outcome everywhere"),
    (change_an_amount, "money is conserved"),
    (invent_a_transfer, "one outcome everywhere"),
    (write_a_balance_past_the_journal, "money is conserved"),
    (print_money, "money is conserved"),
    (let_the_log_forget_a_commit, "one outcome everywhere"),
    (let_the_log_abort_a_commit, "one outcome everywhere"),
    (let_the_log_abort_a_commit, "never both committed and aborted"),
    (let_the_log_commit_an_abort, "one outcome everywhere"),
    (let_the_log_commit_an_abort, "never both committed and aborted"),
    (tell_a_client_otherwise_later, "never both committed and aborted"),
    (leave_a_client_in_the_dark, "every lost answer is found"),
    (commit_in_opposite_orders, "same commit order everywhere"),
    (leave_a_branch_in_doubt_for_a_minute, "nothing left in doubt"),
    (leave_a_branch_prepared, "nothing left in doubt"),
    (let_the_traces_break_a_rule, "the traces hold"),
    (let_the_audit_differ, "audit says atomic"),
]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_right_history_is_accepted_by_every_checker(seed: int) -> None:
    assert {rule: found for rule, found in check(right_evidence(seed)).items() if found} == {}


@pytest.mark.parametrize(("spoil", "rule"), WRONG, ids=[f"{spoil.__name__}-{rule}" for spoil, rule in WRONG])
def test_a_wrong_history_is_rejected(spoil: Spoil, rule: str) -> None:
    accepted = [seed for seed in SEEDS if not CHECKERS[rule](spoil(right_evidence(seed), random.Random(seed)))]
    assert accepted == []


def test_every_checker_has_a_wrong_history_to_reject() -> None:
    assert {rule for _, rule in WRONG} == CHECKERS.keys()


def test_a_violation_names_its_transfer_and_transaction() -> None:
    evidence = right_evidence(1)
    call = a_call(evidence, lambda call: call.known is Status.OK, random.Random(1))
    spoiled = with_journal(evidence, [line for line in evidence.journal if line.transfer != call.transfer])
    assert f"{call.transfer} ({call.gtrid})" in CHECKERS["one outcome everywhere"](spoiled)[0]


def test_a_branch_that_ends_just_in_time_is_no_violation() -> None:
    evidence = right_evidence(1)
    in_time = InDoubt("ledger", "g-1", start_s=40.0, end_s=evidence.healed_s + 29.9)
    assert CHECKERS["nothing left in doubt"](replace(evidence, in_doubt=[in_time])) == []


def test_an_unknown_outcome_without_a_transaction_to_ask_for_is_no_violation() -> None:
    evidence = right_evidence(1)
    call = a_call(evidence, lambda call: call.known is Status.FAIL, random.Random(1))
    unnamed = with_call(evidence, call, gtrid="", status=Status.INFO, resolved=None)
    assert CHECKERS["every lost answer is found"](unnamed) == []


def test_a_long_chain_of_transfers_is_no_cycle_and_needs_no_deep_stack() -> None:
    lines = [
        JournalLine(database, line, f"t-{line}", 1, 0) for line in range(1, 5000) for database in ("accounts", "ledger")
    ]
    assert CHECKERS["same commit order everywhere"](replace(right_evidence(1), journal=lines)) == []
