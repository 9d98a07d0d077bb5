"""The commit succeeds and the client never hears of it: unknown, until it asks."""

from collections.abc import Iterator

from chaos.faults import silence
from chaos.history import Status
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, all_committed, blocked_at_most

TIMEOUT_S = 2.0


async def act(lab: Lab) -> None:
    async with lab.new_teller("cut-off", outcome_wait_s=1.0) as teller:
        lab.say("client", "it has paid on both sides, and thinks before it commits")
        payment = lab.begin_pay(teller=teller, timeout_s=TIMEOUT_S, hold_s=0.8)
        await lab.until_blocked()
        unheard = silence("client", "coordinator", "from")
        await lab.inject(unheard)
        await payment
        lab.say("client", "it does not know whether it has paid", "neither paying again nor giving up would be right")
        await lab.heal(unheard)


def expect(run: Run) -> Iterator[Finding]:
    (call,) = run.calls
    unknown = call.status is Status.INFO
    yield Finding(unknown, "the client is told that the outcome is unknown", f"told first: {call.status.value}")
    yield all_committed(run)
    yield blocked_at_most(run, 2)


SCENARIO = Scenario(
    name="client-reply-lost",
    teaches="Unknown is an answer: a client that lost its reply must ask, with the same gtrid, and never guess.",
    expected="unknown, then asked: committed",
    why=(
        "The request may have arrived or not, and the reply may have been sent or not; to the client these look the "
        "same. It gets OutcomeUnknown with the gtrid, and the coordinator's log has the answer whenever it asks."
    ),
    act=act,
    expect=expect,
    tags=frozenset({"short"}),
)
