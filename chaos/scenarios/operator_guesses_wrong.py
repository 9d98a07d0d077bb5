"""While the coordinator is down somebody loses patience, and rolls a branch back by hand: against a commit decision."""

from collections.abc import Iterator

from chaos.bank_stack import DATABASE, FAILPOINT, BankPlan
from chaos.faults import Crash
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario


async def act(lab: Lab) -> None:
    lab.say("client", "a customer pays a merchant: two databases, one transaction")
    payment = lab.begin_pay(timeout_s=4)
    crash = Crash("after-force", "The decision to commit is on disk; the coordinator dies before it tells anybody.")
    await lab.inject(crash)
    await lab.until_in_doubt(2)
    await lab.rest(1.5)
    cluster = lab.bank.databases["ledger"]
    (branch,) = await lab.blocking(lambda: lab.bank.prepared(["ledger"]))
    await lab.blocking(lambda: cluster.execute(f"ROLLBACK PREPARED '{branch.gid}'", database=DATABASE))
    lab.say(
        "postgres-ledger",
        "an operator runs ROLLBACK PREPARED by hand",
        "the row is free at once, and the guess is wrong",
    )
    await lab.rest(0.5)
    lab.say("coordinator", "it starts again", "its log says commit; the ledger's branch is gone")
    await lab.heal(crash)
    await payment


def expect(run: Run) -> Iterator[Finding]:
    (call,) = run.calls
    logged = run.evidence.logged.get(call.gtrid, "nothing")
    yield Finding(
        logged.startswith("HEURISTIC"), "the transaction ends heuristically, for ever", f"the coordinator says {logged}"
    )
    yield Finding(
        "HeuristicOutcome" in call.error and "aborted" in call.error,
        "the client is told so, with the proof",
        f"the client was told: {call.error.partition(':')[0] or 'nothing'}",
    )
    missing = sum(run.evidence.money_after.values()) - sum(run.evidence.money_before.values())
    yield Finding(missing == -call.cents, "the money is really gone", f"{missing:+d} cents")


SCENARIO = Scenario(
    name="operator-guesses-wrong",
    teaches="A wrong guess about a branch in doubt breaks atomicity for good: it can be reported, and not mended.",
    expected="a heuristic outcome, reported with its evidence by client, log and audit",
    why=(
        "Between the vote and the decision only the log knows the answer. Postgres lets any superuser end a prepared "
        "branch, so the product can't prevent it; but the vote carried the branch's transaction id, and "
        "pg_xact_status proves that it was rolled back. Here the checkers must find the damage: they are tested too."
    ),
    plan=BankPlan(coordinator_env={FAILPOINT: "after-force"}),
    act=act,
    expect=expect,
    breaks=frozenset({"money is conserved", "one outcome everywhere", "audit says atomic"}),
)
