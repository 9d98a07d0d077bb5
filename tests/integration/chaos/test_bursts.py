"""The lab's load has bursts, which go through the coordinator as rows of cohorts, and so through every fault.

A failpoint of the coordinator would keep transactions out of cohorts. So a cohort is held where a fault shall strike it
by the network, which loses a branch's votes, or by a service that stands still as it is told.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.bank_stack import BankPlan
from chaos.faults import Crash, Cut, Fault, Kill, StopPostgres, silence
from chaos.history import Call, Status
from chaos.lab import Lab
from chaos.runner import Result, run_scenario
from chaos.scenario import AS_ROWS, Act, Finding, Run, Scenario, some_as_rows
from chaos.stack import Stack
from chaos.workload import AT_ONCE, BURST, Draws, Kind, Transfer
from handfast.frames.columns import COLUMNS_MIN
from participant.failpoints import ENVIRONMENT_VARIABLE as FAILPOINT

HELD_S_MAX = 15.0
ROWS = (BURST - 1, BURST)
"""How many of a burst are rows: an idle client writes the first call at once, and the others gather meanwhile."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """What the stacks of this module share: initdb is made once."""
    with Stack() as stack:
        yield stack.path


def ran(shared: Path, act: Act, plan: BankPlan | None = None) -> Result:
    """A run that has paid once before ``act``, so that every stream is up, and is judged by its traces too."""

    async def paid_before(lab: Lab) -> None:
        assert (await lab.pay(kind="pay at once", customer=100, merchant=100)).status is Status.OK
        await act(lab)

    def expect(run: Run) -> Iterator[Finding]:
        yield some_as_rows(run)

    scenario = Scenario(
        name="a-test",
        teaches="It is a test.",
        expected="it works",
        why="because",
        plan=plan or BankPlan(),
        act=paid_before,
        expect=expect,
    )
    return asyncio.run(run_scenario(scenario, shared, seed=1, trace=True))


def apart(kind: Kind, count: int = BURST, first: int = 10) -> list[Transfer]:
    """Transfers that don't wait for each other, from this account on."""
    return [Transfer(kind, account, account, 1) for account in range(first, first + count)]


async def until_prepared(lab: Lab, **branches: int) -> None:
    """Wait until so many branches are prepared in each database."""
    await lab.until(
        lambda: Counter(one.database for one in lab.in_doubt()) == Counter(branches),
        HELD_S_MAX,
        f"not prepared: {branches}",
    )


async def rows(lab: Lab) -> float:
    """How many transactions have begun as rows so far."""
    await lab.count_rows()
    return lab.facts[AS_ROWS]


async def until_bursts_are_cohorts(lab: Lab) -> None:
    """Make bursts until one goes together: after a fault, streams and frame connections are made anew."""
    give_up_s = lab.events.now_s() + HELD_S_MAX
    before = await rows(lab)
    await lab.teller.burst(apart("pay at once"))
    while await rows(lab) - before not in ROWS:
        assert lab.events.now_s() < give_up_s, [call.error for call in lab.history.calls[-BURST:]]
        before = await rows(lab)
        await lab.teller.burst(apart("pay at once"))


async def struck(lab: Lab, fault: Fault, held: Fault, **branches: int) -> tuple[float, list[Call]]:
    """A burst that is held by one fault until so many branches are prepared, and is then struck by another.

    Returns how many of it began as rows, and the calls.
    """
    await until_bursts_are_cohorts(lab)
    before = await rows(lab)
    await lab.inject(held)
    burst = lab.background(lab.teller.burst(apart("refund at once"), timeout_s=10))
    await until_prepared(lab, **branches)
    began = await rows(lab) - before
    await lab.inject(fault)
    async with lab.under(Cut("coordinator", "ledger")):
        await lab.heal(held)  # Toxiproxy would wait for connections whose end is dead
    await lab.heal(fault)
    calls = await burst
    await lab.blocking(lab.bank.wait_nothing_prepared)
    await lab.blocking(lab.bank.wait_reachable)
    return began, calls


def test_a_burst_goes_through_the_coordinator_as_the_rows_of_a_cohort_and_fewer_transfers_do_not(shared: Path) -> None:
    counted: list[float] = []

    async def act(lab: Lab) -> None:
        few = [*apart("pay at once", COLUMNS_MIN - 1), *apart("refund at once", COLUMNS_MIN - 1, first=50)]
        for transfers in (few, *map(apart, AT_ONCE)):
            calls = await lab.teller.burst(transfers)
            assert [call.status for call in calls] == [Status.OK] * len(transfers), [call.error for call in calls]
            counted.append(await rows(lab))

    result = ran(shared, act)
    assert result.passed, result.observed
    assert counted[0] == 0
    assert {counted[1] - counted[0], counted[2] - counted[1]} <= set(ROWS)


def test_each_transfer_of_a_burst_is_written_down_as_any_other(shared: Path) -> None:
    drawn = Draws(5, accounts=100).burst(BURST)

    async def act(lab: Lab) -> None:
        before = len(lab.history.calls)
        await lab.teller.burst(drawn)
        made = lab.history.calls[before:]
        assert [(call.kind, call.customer, call.merchant, call.cents) for call in made] == [
            (one.kind, one.customer, one.merchant, one.cents) for one in drawn
        ]
        assert len({call.gtrid for call in made if call.status is Status.OK} - {""}) == BURST
        assert len({call.transfer for call in made}) == BURST

    result = ran(shared, act)
    assert result.passed, result.observed


def test_the_load_has_bursts_unless_it_is_told_not_to(shared: Path) -> None:
    counted: list[float] = []

    async def act(lab: Lab) -> None:
        for bursts in (False, True):
            await lab.load(seconds=1, concurrency=1, bursts=bursts)
            counted.append(await rows(lab))

    result = ran(shared, act)
    assert result.passed, result.observed
    assert counted[0] == 0 < counted[1]


def test_of_a_cohort_whose_coordinator_dies_between_its_commits_each_row_has_one_outcome(shared: Path) -> None:
    seen: list[tuple[float, set[Status]]] = []

    async def act(lab: Lab) -> None:
        held = Crash("before-commit", "The ledger stands still as a Commit reaches it.", "stop", name="ledger")
        burst = lab.background(lab.teller.burst(apart("pay at once"), timeout_s=10))
        await lab.inject(held)
        await lab.until(lambda: any(one.database == "ledger" for one in lab.in_doubt()), HELD_S_MAX, "nothing prepared")
        began = await rows(lab)
        async with lab.under(Kill("coordinator")):
            await lab.heal(held)
        seen.append((began, {call.known for call in await burst}))

    # The first Commit is of the payment before; the second may be of a call that went before the rows.
    result = ran(shared, act, BankPlan(service_env={"ledger-1": {FAILPOINT: "before-commit=stop@3"}}))
    assert result.passed, result.observed
    ((began, known),) = seen
    assert began in ROWS
    assert {Status.OK} <= known <= {Status.OK, Status.FAIL}


def test_a_cohort_that_lacks_votes_aborts_whatever_strikes(shared: Path) -> None:
    seen: dict[str, tuple[bool, set[Status]]] = {}

    async def act(lab: Lab) -> None:
        for fault in (Kill("ledger"), Kill("coordinator"), StopPostgres("accounts")):
            unheard = silence("coordinator", "ledger", "from")
            began, calls = await struck(lab, fault, unheard, accounts=BURST, ledger=BURST)
            seen[fault.label] = began in ROWS, {call.known for call in calls}

    result = ran(shared, act)
    assert result.passed, result.observed
    assert len(seen) == 3
    assert seen == dict.fromkeys(seen, (True, {Status.FAIL}))
