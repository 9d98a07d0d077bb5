"""The disk under the decision log is full: nothing new can be decided, and nothing that was is lost."""

from collections.abc import Iterator

from chaos.faults import FullDisk
from chaos.history import Status
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, blocked_at_most

TRIES = 4


async def act(lab: Lab) -> None:
    lab.say("client", "some payments, while there is space")
    for _ in range(TRIES):
        await lab.pay(cents=10)
    full = FullDisk()
    await lab.inject(full)
    for _ in range(TRIES):
        await lab.pay(cents=10)
    lab.say("coordinator", "it goes on, and says no", "a commit that can't be written must not be sent")
    await lab.heal(full)
    lab.say("coordinator", "there is space again")
    for _ in range(TRIES):
        await lab.pay(cents=10)


def expect(run: Run) -> Iterator[Finding]:
    ends = [[call.known for call in run.calls[first : first + TRIES]] for first in range(0, 3 * TRIES, TRIES)]
    before, during, after = ends
    yield Finding(
        before == after == [Status.OK] * TRIES,
        "commits before, and again when space returns",
        f"{before.count(Status.OK)} of {TRIES} committed before, {after.count(Status.OK)} after",
    )
    yield Finding(
        during == [Status.FAIL] * TRIES,
        "while the disk is full every payment is a clean abort",
        f"{during.count(Status.FAIL)} of {TRIES} aborted meanwhile",
    )
    yield blocked_at_most(run, 3)


SCENARIO = Scenario(
    name="log-disk-full",
    teaches="Without space for the decision there is no commit: payments abort cleanly, and resume by themselves.",
    expected="clean aborts while the disk is full, commits before and after",
    why=(
        "The commit record is forced before any Commit is sent. When it certainly could not be written, nothing was "
        "decided, so abort is safe, and aborts need no record. Decisions made earlier are on disk and stay there."
    ),
    log_kilobytes=2048,
    act=act,
    expect=expect,
)
