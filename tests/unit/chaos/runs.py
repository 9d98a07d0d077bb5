"""Histories for the checkers: a right one, made from a seed, which each test then spoils in one way."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from chaos.bank_stack import SERVICES, JournalLine
from chaos.evidence import Evidence
from chaos.history import Call, Status

ACCOUNTS = 4
BALANCE = 1000


def right_evidence(seed: int, calls: int = 40) -> Evidence:
    """A run in which all went well: some transfers committed, some failed, some unknown and then asked for.

    Transfers commit one after another, in the same order in both databases.
    """
    draw = random.Random(seed)
    made = [_call(number, draw) for number in range(calls)]
    committed = [call for call in made if call.known is Status.OK]
    draw.shuffle(committed)
    journal = [
        JournalLine(database, line, call.transfer, _account(call, database), sign * call.cents)
        for line, call in enumerate(committed, 1)
        for database, sign in zip(SERVICES, (-1, 1), strict=True)
    ]
    moved = sum(call.cents for call in committed)
    return Evidence(
        calls=made,
        journal=journal,
        money_before=dict.fromkeys(SERVICES, ACCOUNTS * BALANCE),
        money_after={"accounts": ACCOUNTS * BALANCE - moved, "ledger": ACCOUNTS * BALANCE + moved},
        logged={call.gtrid: "COMMITTED" if call.known is Status.OK else "ABORTED" for call in made},
        healed_s=50.0,
        ended_s=55.0,
    )


def _call(number: int, draw: random.Random) -> Call:
    status = draw.choice([Status.OK, Status.OK, Status.FAIL, Status.INFO])
    return Call(
        number=number,
        kind="pay",
        transfer=f"t-{number}",
        customer=draw.randint(1, ACCOUNTS),
        merchant=draw.randint(1, ACCOUNTS),
        cents=draw.randint(1, 9),
        start_s=float(number),
        gtrid=f"g-{number}",
        end_s=number + 0.5,
        status=status,
        resolved=draw.choice([Status.OK, Status.FAIL]) if status is Status.INFO else None,
    )


def _account(call: Call, database: str) -> int:
    return call.customer if database == "accounts" else call.merchant


def a_call(evidence: Evidence, wanted: Callable[[Call], bool], draw: random.Random) -> Call:
    """One of the calls that are wanted."""
    return draw.choice([call for call in evidence.calls if wanted(call)])


def with_call(evidence: Evidence, call: Call, **fields: object) -> Evidence:
    """The same with one call changed."""
    calls = list(evidence.calls)
    calls[call.number] = replace(call, **fields)  # type: ignore[arg-type]  # ** has one type only
    return replace(evidence, calls=calls)


def with_journal(evidence: Evidence, journal: Sequence[JournalLine]) -> Evidence:
    """The same with another journal, and with the money that this journal would leave."""
    after = {
        database: evidence.money_before[database] + sum(line.cents for line in journal if line.database == database)
        for database in SERVICES
    }
    return replace(evidence, journal=journal, money_after=after)
