"""Clients die without a word: one while it thinks, one while its commit is under way."""

from collections.abc import Iterator

from chaos.faults import Kill
from chaos.history import Status
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, blocked_at_most

TIMEOUT_S = 3.0


async def act(lab: Lab) -> None:
    lab.say("client", "a client pays on both sides, and thinks", "it holds both rows")
    thinking = await lab.lone_client("thinking", 1, commit=False, timeout_s=TIMEOUT_S)
    committing = await lab.lone_client("committing", 2, commit=True, timeout_s=TIMEOUT_S)
    for name, number in (("committing", committing), ("thinking", thinking)):
        await lab.inject(Kill(name))
        lab.history.end(number, Status.INFO, "the client was killed")
    lab.say("coordinator", "nobody will ever ask for the first commit", "its deadline is what frees the rows")
    await lab.until(lambda: all(probe.waiting_s < 0.05 for probe in lab.probes), TIMEOUT_S + 5, "rows are still held")
    await lab.rest(0.5)


def expect(run: Run) -> Iterator[Finding]:
    thinking, committing = run.calls
    yield Finding(
        thinking.known is Status.FAIL,
        "the transaction of the client that was thinking aborts",
        f"the thinker's payment: {thinking.known.value}",
    )
    yield Finding(
        committing.known is not Status.INFO,
        "the other's has one outcome, whichever",
        f"the other's: {committing.known.value}",
    )
    yield blocked_at_most(run, TIMEOUT_S + 1)


SCENARIO = Scenario(
    name="client-vanishes",
    teaches="Every transaction has a deadline, so a client that dies holds its rows no longer than that.",
    expected="rows free at the deadline at the latest; one outcome for each",
    why=(
        "A dead client sends nothing, not even goodbye. Before the commit is asked for, the deadline aborts its "
        "transaction at the coordinator and in each branch. After that the coordinator needs no client any more: it "
        "runs both phases, and keeps the answer for whoever asks."
    ),
    act=act,
    expect=expect,
    tags=frozenset({"short"}),
)
