"""Thin and crumbling links, and then a late one, on which a Rollback overtakes its Prepare."""

from collections.abc import Iterator

from chaos.faults import bandwidth, slicer
from chaos.lab import Lab
from chaos.late import HeldUp, Rerouted
from chaos.scenario import Finding, Run, Scenario, blocked_at_most, some_as_rows, some_committed
from handfast.v1 import types_pb2

LOAD_S = 5.0
LOAD_ACCOUNTS = 20
OVERTAKEN = LOAD_ACCOUNTS + 1
"""The account, on both sides, of the payment whose Prepare is overtaken."""
SEEN_S = 1.0
"""For how long the late Prepare's consequences are watched for."""


async def act(lab: Lab) -> None:
    thin = bandwidth("coordinator", "ledger", kb_per_s=1)
    crumbling = slicer("coordinator", "accounts", size=64, delay_us=20_000)
    async with lab.under(thin), lab.under(crumbling):
        lab.say("client", f"payments for {LOAD_S:g} s", "every frame arrives in pieces, some of them late")
        await lab.load(seconds=LOAD_S, accounts=LOAD_ACCOUNTS)
    await overtake(lab)
    await lab.load(seconds=1, accounts=LOAD_ACCOUNTS)


async def overtake(lab: Lab) -> None:
    """A Prepare that carries its work is kept in the network until its Rollback has been answered."""
    late = HeldUp("coordinator", "ledger")
    await lab.inject(late)
    payment = lab.begin_pay(kind="pay at once", customer=OVERTAKEN, merchant=OVERTAKEN)
    await lab.until(lambda: any(one.database == "accounts" for one in lab.in_doubt()), 5, "accounts is not prepared")
    await lab.rest(SEEN_S / 2)  # what was sent to both at once is surely on its way
    lab.say("ledger", "its Prepare, with the work in it, is still on the way")
    broken = Rerouted("coordinator", "ledger")
    await lab.inject(broken)
    await lab.heal(broken)
    call = await payment
    ended = types_pb2.TRANSACTION_STATE_ABORTED
    await lab.until(lambda: lab.bank.admin.transaction(call.gtrid).state == ended, 10, "the Rollback was not answered")
    lab.say("ledger", "it has answered the Rollback of a branch that it never saw", "and remembers that it did")
    await lab.heal(late)
    lab.say("ledger", "now the Prepare arrives", "nobody waits for its vote: a YES would lock rows for nothing")
    await lab.rest(SEEN_S)


def expect(run: Run) -> Iterator[Finding]:
    yield some_committed(run, 20)
    yield some_as_rows(run)
    yield from expect_overtaken(run)
    yield blocked_at_most(run, 8)  # the lock timeout is 5 s: hot rows deadlock across databases by chance


def expect_overtaken(run: Run) -> Iterator[Finding]:
    (gtrid,) = (call.gtrid for call in run.calls if call.merchant == OVERTAKEN)
    raised = [one for one in run.in_doubt if (one.database, one.gtrid) == ("ledger", gtrid)]
    seconds = sum((run.ended_s if one.end_s is None else one.end_s) - one.start_s for one in raised)
    yield Finding(
        not raised,
        "a Prepare that its Rollback overtook prepares nothing",
        f"the overtaken Prepare left the ledger in doubt for {seconds:.1f} s" if raised else "the late Prepare: NO",
    )


SCENARIO = Scenario(
    name="slow-network",
    teaches="A network that delivers in crumbs, late and out of order makes transactions slow, and never wrong.",
    expected="slower, and nothing else; a Prepare overtaken by its Rollback gets NO",
    why=(
        "Nothing in the protocol depends on how a message is cut up or how long it travels, except its deadline; and "
        "past that it aborts. Nor on the order of two connections: a Rollback for a branch that nobody knows leaves a "
        "tombstone, and the Prepare that it overtook finds it. Without it that Prepare would do its work after the "
        "end, and lock rows until somebody sweeps them free."
    ),
    late_links=frozenset({("coordinator", "ledger")}),
    act=act,
    expect=expect,
)
