"""Two transfers take the same two rows in opposite order, in two databases: a deadlock that no server can see."""

import asyncio
from collections.abc import Iterator

from chaos.history import Status
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, blocked_at_most

PATIENT_S, HASTY_S = 10.0, 3.0
BETWEEN_S = 0.5


async def act(lab: Lab) -> None:
    lab.say("client", "one locks its row in A, the other in B", "then each wants the row that the other has")
    patient = lab.begin_pay(kind="pay", timeout_s=PATIENT_S, between_s=BETWEEN_S)
    hasty = lab.begin_pay(kind="refund", cents=50, timeout_s=HASTY_S, between_s=BETWEEN_S)
    await asyncio.gather(patient, hasty)


def expect(run: Run) -> Iterator[Finding]:
    patient, hasty = run.calls
    yield Finding(
        (patient.known, hasty.known) == (Status.OK, Status.FAIL),
        "the one with less time left is sacrificed, and the other commits",
        f"the one with {PATIENT_S:g} s ended {patient.known.value}, the one with {HASTY_S:g} s {hasty.known.value}",
    )
    yield blocked_at_most(run, HASTY_S + 1.5)


SCENARIO = Scenario(
    name="deadlock-across-databases",
    teaches="A deadlock across two databases is invisible to both; only a bound on waiting ends it.",
    expected="ended by the lock timeout, as a clean abort",
    why=(
        "Each server sees one transaction wait for another that is merely idle: no cycle, no deadlock. So every branch "
        "carries a lock timeout no longer than the time left to its transaction. Taking rows in one agreed order, in "
        "all databases, avoids it altogether."
    ),
    act=act,
    expect=expect,
    tags=frozenset({"short"}),
)
