"""Connections that break in the middle of a message, again and again, on three links in turn."""

from collections.abc import Iterator

from chaos.faults import limit_data, reset_peer
from chaos.history import Status
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, blocked_at_most, some_as_rows, some_committed

EACH_S = 2.0


async def act(lab: Lab) -> None:
    load = lab.background(lab.load(seconds=4 * EACH_S + 2, accounts=20, timeout_s=3))
    for fault in (
        limit_data("coordinator", "ledger", 3000, "from"),
        limit_data("coordinator", "accounts", 3000, "to"),
        reset_peer("client", "coordinator", after_ms=400),
        reset_peer("ledger", "coordinator", after_ms=300),
    ):
        async with lab.under(fault):
            await lab.rest(EACH_S)
    await load


def expect(run: Run) -> Iterator[Finding]:
    unknown = sum(call.status is Status.INFO for call in run.calls)
    yield some_committed(run, 20)
    yield some_as_rows(run)
    yield Finding(
        run.unknown_resolved == unknown,
        "every client that did not know has learned its outcome",
        f"{unknown} unknown, {run.unknown_resolved} resolved",
    )
    yield blocked_at_most(run, 10)


SCENARIO = Scenario(
    name="cut-mid-message",
    teaches="A connection may break at any byte; what was being said is then unknown, and is asked again.",
    expected="aborts and questions, and not one wrong outcome",
    why=(
        "A message cut off half-way was not received, one cut off after its last byte was: the sender can't tell. "
        "So every call is idempotent, decisions are sent until acknowledged, and lost votes count as no."
    ),
    act=act,
    expect=expect,
)
