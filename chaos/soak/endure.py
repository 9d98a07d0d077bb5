"""One soak: a stack, clients and faults for the whole time, samples meanwhile, and the lab's judges at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chaos.bank_stack import SERVICES, BankPlan
from chaos.checkers import COMMITTED, IN_DOUBT_S_MAX, check
from chaos.events import FaultSpan, Listener
from chaos.evidence import Evidence
from chaos.faults import Kill, Restart
from chaos.history import Call, Status
from chaos.lab import Lab
from chaos.runner import logged, settled_audit
from chaos.scenario import AS_ROWS
from chaos.scenarios import everything, find
from chaos.scenarios.everything import Blow
from chaos.soak.flatness import WARM_UP, Judgement, is_judged, judge
from chaos.soak.samples import Key, Sampler
from chaos.stack import NotInTime, Stack

RETENTION_S = 60.0
INTERVAL_S = 2.0
DEATH_S_MAX = 10.0
"""How long before the end of the warm-up the last process may die: it must be back by then."""

_SETTLE_PAUSE_S = 2.0

COORDINATOR_FLAGS: Mapping[str, object] = {
    "retention_h": RETENTION_S / 3600 + 1e-6,
    "block_lifetime_s": 20,
    "default_timeout_s": 30,
    "timeout_max_s": 40,
    "finished_kept_max": 500,
    "retry_cap_s": 2,
    "sweep_interval_s": 5,
}
"""Everything that is bounded by time or number comes to its bound early."""


@dataclass(frozen=True, slots=True)
class Soaked:
    """What a soak came to.

    Args:
        seed: of its load and faults.
        seconds: how long clients made transfers.
        seen: the samples, by process and measure.
        judgements: whether each curve is flat.
        violations: what the lab's judges found, in words.
        calls: what clients did.
        faults: what was done to the stack.
    """

    seed: int
    seconds: float
    seen: Mapping[Key, Sequence[tuple[float, float]]]
    judgements: Sequence[Judgement]
    violations: Sequence[str]
    calls: Sequence[Call]
    faults: Sequence[FaultSpan]

    @property
    def passed(self) -> bool:
        """Whether nothing grew, and nothing else is wrong."""
        return not self.violations and all(one.is_flat for one in self.judgements)


async def soak(
    *, seed: int, minutes: float, listener: Listener, toxiproxy: Path | None = None, keep: bool = False
) -> Soaked:
    """Run one.

    Args:
        seed: of its load and faults.
        minutes: how long.
        listener: is told of each event as it happens.
        toxiproxy: the server program; looked for when None.
        keep: leave the stack's folder, with databases and logs.

    Raises:
        StackError: the stack did not start, or a fault could not be healed.
    """
    plan = BankPlan(
        accounts=everything.ACCOUNTS,
        balance=1_000_000,
        coordinator_flags=COORDINATOR_FLAGS,
        service_flags={"memory_age_s": RETENTION_S},
    )
    scenario = replace(find("everything"), plan=plan, rows=())
    seconds = minutes * 60
    async with Stack(keep=keep) as stack:
        lab = Lab(scenario, stack, seed=seed, minutes=minutes, listener=listener, toxiproxy=toxiproxy)
        async with lab:
            sampler = Sampler(lab.bank, lab.events.now_s, INTERVAL_S)
            sampler.start()
            asking = lab.background(_ask_again(lab))
            await everything.endure(lab, blows(seed, seconds, lab.events.now_s), seconds)
            asking.cancel()
            ended_s = lab.events.now_s()
            await lab.blocking(sampler.stop)
            violations = await _violations(lab)
    judgements = [judge(*key, samples, ended_s) for key, samples in sampler.seen.items() if is_judged(*key)]
    return Soaked(seed, ended_s, sampler.seen, judgements, violations, lab.history.calls, lab.events.faults)


def blows(seed: int, seconds: float, now_s: Callable[[], float]) -> Iterator[Blow]:
    """The schedule of `everything`, in which processes die in the warm-up only.

    Args:
        seed: of the schedule.
        seconds: how long it shall last.
        now_s: the run's clock; asked as each blow begins, for healing takes time that no schedule knows.
    """
    for blow in everything.schedule(seed, seconds):
        survived = tuple(fault for fault in blow.faults if not isinstance(fault, Kill | Restart))
        yield blow if now_s() < seconds * WARM_UP - DEATH_S_MAX else replace(blow, faults=survived)


async def _ask_again(lab: Lab) -> None:
    """Ask for lost outcomes while the log still knows them."""
    while True:
        await lab.rest(_SETTLE_PAUSE_S)
        for call in lab.history.unresolved():
            if call.end_s is not None:
                await lab.teller.settle(call.number)


async def _violations(lab: Lab) -> list[str]:
    """Heal, let everything settle, and ask the judges."""
    await lab.heal_all()
    healed_s = lab.events.now_s()
    await lab.count_rows()
    lab.say("coordinator", f"{lab.facts[AS_ROWS]:g} transactions began as rows of a cohort")
    try:
        await lab.blocking(lambda: lab.bank.wait_nothing_prepared(IN_DOUBT_S_MAX + 1))
    except NotInTime as late:
        return [f"branches are still in doubt: {late}"]
    for call in lab.history.unresolved():
        await lab.teller.settle(call.number)
    evidence = await asyncio.to_thread(_evidence, lab, healed_s)
    violations = [f"{rule}: {words}" for rule, found in check(evidence).items() for words in found]
    return violations if lab.facts[AS_ROWS] else [*violations, "the load has bursts: none of them became a cohort"]


def _evidence(lab: Lab, healed_s: float) -> Evidence:
    lab.stop_watching()
    bank, plan, calls = lab.bank, lab.scenario.plan, lab.history.calls
    audit = settled_audit(bank, lab.say)
    return Evidence(
        calls=calls,
        journal=bank.journal(),
        money_before=dict.fromkeys(SERVICES, plan.accounts * plan.balance),
        money_after=bank.money(),
        logged=with_forgotten(logged(bank.admin, _recent(calls, lab.events.now_s())), calls),
        in_doubt=[one for watch in lab.watches for one in watch.windows],
        left_prepared=[f"{one.database}: {one.gid}" for one in bank.prepared()],
        healed_s=healed_s,
        ended_s=lab.events.now_s(),
        audit_verdict=audit.verdict,
        audit_differences=[f"{one.gtrid} {one.bqual}: {one.log}, {one.resource}" for one in audit.differences],
    )


def _recent(calls: Sequence[Call], now_s: float) -> list[Call]:
    """The calls whose transactions the log must still know: it may forget them a retention after their end."""
    return [call for call in calls if call.end_s is None or now_s - call.end_s < RETENTION_S / 2]


def with_forgotten(told: Mapping[str, str], calls: Sequence[Call]) -> dict[str, str]:
    """What the coordinator says, and of what it has rightly forgotten what the client was told: both journals must
    still agree with that."""
    forgotten = {call.gtrid: COMMITTED for call in calls if call.known is Status.OK and call.gtrid}
    return {**forgotten, **told}
