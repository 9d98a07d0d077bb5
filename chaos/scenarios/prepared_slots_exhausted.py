"""A database has no slot left for another prepared transaction."""

from collections.abc import Iterator

from chaos.bank_stack import DATABASE, BankPlan
from chaos.history import Status
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, blocked_at_most

SLOTS = 2
FOREIGN = tuple(f"somebody-else-{number}" for number in range(SLOTS))


async def act(lab: Lab) -> None:
    cluster = lab.bank.databases["ledger"]

    def take() -> None:
        for number, gid in enumerate(FOREIGN):
            with cluster.connect(DATABASE) as session:
                session.execute("BEGIN")
                session.execute("UPDATE account SET balance = balance WHERE id = %s", (90 + number,))
                session.execute(f"PREPARE TRANSACTION '{gid}'")

    await lab.blocking(take)
    lab.say(
        "postgres-ledger", f"all {SLOTS} slots are taken", "by prepared transactions of somebody else, who went away"
    )
    for _ in range(3):
        await lab.pay()
    await lab.blocking(lambda: [cluster.execute(f"ROLLBACK PREPARED '{gid}'", database=DATABASE) for gid in FOREIGN])
    lab.say("postgres-ledger", "its owner has rolled them back", "Handfast never touches what is not its own")
    await lab.pay()


def expect(run: Run) -> Iterator[Finding]:
    refused, last = run.calls[:3], run.calls[3]
    named = sum("max_prepared_transactions" in call.error or "slots" in call.error for call in refused)
    yield Finding(
        all(call.known is Status.FAIL for call in refused) and named == len(refused),
        "without a slot each payment aborts, and the reason names the slots",
        f"{sum(call.known is Status.FAIL for call in refused)} aborted, {named} with the reason",
    )
    yield Finding(last.known is Status.OK, "with slots the next one commits", f"then: {last.known.value}")
    yield blocked_at_most(run, 1)


SCENARIO = Scenario(
    name="prepared-slots-exhausted",
    teaches="Prepared transactions need slots; when they run out, the answer is a clean no that says so.",
    expected="aborts that name the slots, then commits again",
    why=(
        "max_prepared_transactions bounds how many branches a server can hold in doubt. PREPARE without a slot fails "
        "and rolls back, which is a NO vote like any other. `handfast doctor` counts the free slots before it happens."
    ),
    plan=BankPlan(max_prepared_transactions=SLOTS),
    act=act,
    expect=expect,
    tags=frozenset({"short"}),
)
