"""Runs a scenario: a fresh stack, the damage, the healing, the evidence, the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc

from chaos.admin import Admin
from chaos.bank_stack import SERVICES, BankStack
from chaos.checkers import ABORTED, COMMITTED, IN_DOUBT_S_MAX, check
from chaos.events import Event, Listener
from chaos.evidence import Evidence
from chaos.history import Call
from chaos.lab import Lab, lane_of
from chaos.scenario import DECIDED, Finding, Run, Scenario
from chaos.stack import NotInTime, Stack, wait_until
from chaos.stack.postgres_binaries import VERSION_DEFAULT, find_binaries
from chaos.stack.postgres_data import make_template
from chaos.tracing import TRACE_FILE, broken_by_trace, is_at_rest, traced_to
from handfast.v1 import admin_pb2, types_pb2

_WATCHES_SEE_S_MAX = 3.0
_AUDIT_SETTLES_S_MAX = 10.0
_PHASES_CALLS_MAX = 30
_LISTED_MAX = 10_000
_LOG_LINES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A scenario's verdict, and what it rests on.

    Args:
        scenario: which.
        seed: of the run.
        run: what happened; None when it could not be brought to its end.
        findings: what the scenario expected, and what was seen.
        error: why it could not be brought to its end; empty when it was.
        events: what happened, also when it broke off.
        logs: the last lines that each process wrote, by name.
        seconds: how long it took, start and stop of the stack included.
    """

    scenario: Scenario
    seed: int
    run: Run | None
    findings: Sequence[Finding]
    error: str = ""
    events: Sequence[Event] = ()
    logs: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def broken_rules(self) -> list[str]:
        """The rules that were broken and should not be, or should be and were not; with what was found."""
        if self.run is None:
            return []
        found = [
            f"{rule}: {violations[0]}" + (f" (and {len(violations) - 1} more)" if len(violations) > 1 else "")
            for rule, violations in self.run.violations.items()
            if violations and rule not in self.scenario.breaks
        ]
        unbroken = [rule for rule in sorted(self.scenario.breaks) if not self.run.violations[rule]]
        return found + [f"{rule}: held, and this scenario must show it broken" for rule in unbroken]

    @property
    def passed(self) -> bool:
        """Whether everything was as expected."""
        return self.run is not None and not self.broken_rules and all(finding.holds for finding in self.findings)

    @property
    def observed(self) -> str:
        """What was seen, in a line or two."""
        if self.error:
            return self.error
        return "; ".join([finding.observed for finding in self.findings] + self.broken_rules)


async def run_scenario(
    scenario: Scenario,
    shared: Path,
    *,
    seed: int,
    minutes: float = 1.0,
    listener: Listener = lambda event: None,
    keep: bool = False,
    trace: bool = False,
    toxiproxy: Path | None = None,
) -> Result:
    """Run one scenario on a stack of its own.

    Args:
        scenario: which.
        shared: a folder that outlives it, for what stacks can share.
        seed: of the load and the schedule.
        minutes: how long the scenario `everything` lasts.
        listener: is told of each event as it happens.
        keep: leave the stack's folder, with data and logs.
        trace: have every process write its protocol events, and judge them too.
        toxiproxy: the server program; looked for when None.
    """
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    async with Stack(keep=keep) as stack:
        await asyncio.to_thread(_share, shared, stack.path)
        with traced_to(stack.path / TRACE_FILE if trace else None) as lines:
            lab = Lab(scenario, stack, seed=seed, minutes=minutes, listener=listener, toxiproxy=toxiproxy)
            lab.trace = lines
            run, findings, error = await _run(lab, scenario)
        logs = _logs(lab)
    return Result(
        scenario=scenario,
        seed=seed,
        run=run,
        findings=findings,
        error=error,
        events=lab.events.events,
        logs=logs,
        seconds=loop.time() - started_s,
    )


async def _run(lab: Lab, scenario: Scenario) -> tuple[Run | None, Sequence[Finding], str]:
    """Run it; whatever breaks it off is a failed verdict, and the next scenario goes on."""
    try:
        async with lab:
            await scenario.act(lab)
            run = await _collect(lab)
        return run, list(scenario.expect(run)), ""
    except Exception as problem:  # noqa: BLE001 - reported, with the scenario's name, as its verdict
        lab.events.note("", "broke off", f"{type(problem).__name__}: {problem}")
        return None, (), f"broke off: {type(problem).__name__}: {problem}".splitlines()[0]


async def _collect(lab: Lab) -> Run:
    """Heal what is left, let everything settle, and gather the evidence."""
    await lab.heal_all()
    healed_s = lab.events.now_s()
    await lab.finish_calls()
    await lab.count_rows()
    await _settle_branches(lab)
    for call in lab.history.unresolved():
        settled = await lab.teller.settle(call.number)
        lab.say("client", f"{call.transfer}: asked what became of it", settled.resolution)
    evidence = await lab.blocking(lambda: _gather(lab, healed_s))
    return Run(
        seed=lab.seed,
        calls=evidence.calls,
        events=lab.events.events,
        faults=lab.events.faults,
        blocked=[one for probe in lab.probes for one in probe.blocked],
        in_doubt=evidence.in_doubt,
        half_seen=lab.total_watch.seen if lab.total_watch else (),
        facts=lab.facts,
        evidence=evidence,
        violations=check(evidence),
        phases=await lab.blocking(lambda: _phases(lab)),
        healed_s=healed_s,
        ended_s=evidence.ended_s,
    )


async def _settle_branches(lab: Lab) -> None:
    """Wait until nothing is prepared. What still is after that time is for the checker to judge."""
    try:
        await lab.blocking(lambda: lab.bank.wait_nothing_prepared(IN_DOUBT_S_MAX + 1))
    except NotInTime as late:
        lab.say("", "branches are still in doubt", str(late))
        return
    await lab.comes_true(lambda: not lab.in_doubt(), _WATCHES_SEE_S_MAX)  # so that their books have every end
    if lab.trace is not None:
        # A branch may have ended in its database before its participant, whose answer was lost, has found that out.
        await lab.comes_true(partial(is_at_rest, lab.trace), IN_DOUBT_S_MAX)


def _gather(lab: Lab, healed_s: float) -> Evidence:
    lab.stop_watching()
    bank, plan = lab.bank, lab.scenario.plan
    audit = settled_audit(bank, lab.say)
    differences = [f"{one.gtrid} {one.bqual}: log {one.log}, resource {one.resource}" for one in audit.differences]
    return Evidence(
        calls=lab.history.calls,
        journal=bank.journal(),
        money_before=dict.fromkeys(SERVICES, plan.accounts * plan.balance),
        money_after=bank.money(),
        logged=logged(bank.admin, lab.history.calls),
        in_doubt=[one for watch in lab.watches for one in watch.windows],
        left_prepared=[f"{one.database}: {one.gid}" for one in bank.prepared()],
        healed_s=healed_s,
        ended_s=lab.events.now_s(),
        trace_broken=broken_by_trace(lab.trace),
        audit_verdict=audit.verdict,
        audit_differences=differences + [f"{one.subject}: {one.found}" for one in audit.unreachable],
    )


def settled_audit(
    bank: BankStack, say: Callable[[str, str, str], None] = lambda lane, what, why: None
) -> admin_pb2.AuditResponse:
    """The audit, once no branch is on its way any more, or after a while as it is.

    Args:
        bank: whose.
        say: is told, by lane, what and why, when it did not settle.
    """
    try:
        bank.wait_reachable(_AUDIT_SETTLES_S_MAX)
        wait_until(lambda: bank.admin.audit().verdict != "pending", _AUDIT_SETTLES_S_MAX, "the audit is pending")
    except NotInTime as late:
        say("coordinator", "the audit did not settle", str(late))
    return bank.admin.audit()


def logged(admin: Admin, calls: Sequence[Call]) -> dict[str, str]:
    """What the coordinator says of each transaction of the clients, by gtrid.

    Args:
        admin: who is asked.
        calls: what the clients did.
    """
    told = {one.gtrid: _outcome(one) for one in admin.transactions(_LISTED_MAX)}
    for gtrid in {call.gtrid for call in calls if call.gtrid} - told.keys():
        try:
            told[gtrid] = _outcome(admin.transaction(gtrid))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
    return {call.gtrid: told[call.gtrid] for call in calls if call.gtrid in told}


def _outcome(transaction: admin_pb2.Transaction) -> str:
    """The outcome; before there is one, the decision that stands, or else the state."""
    if transaction.outcome:
        return types_pb2.Outcome.Name(transaction.outcome).removeprefix("OUTCOME_")
    state = types_pb2.TransactionState.Name(transaction.state).removeprefix("TRANSACTION_STATE_")
    return {"COMMITTING": COMMITTED, "ABORTING": ABORTED}.get(state, state)


def _phases(lab: Lab) -> dict[str, list[tuple[float, str]]]:
    """Moments of transactions, as the coordinator tells them and as far as it remembers; of many only the decision."""
    if len(lab.history.calls) > _PHASES_CALLS_MAX:
        listed = lab.bank.admin.transactions(_LISTED_MAX)
        return {
            one.gtrid: [(lab.events.of_unix(one.decided_unix_ms / 1000), DECIDED)]
            for one in listed
            if one.decided_unix_ms
        }
    found: dict[str, list[tuple[float, str]]] = {}
    for call in [call for call in lab.history.calls if call.gtrid]:
        try:
            told = lab.bank.admin.transaction(call.gtrid)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            continue
        moments = [(entry.unix_ms, entry.event) for entry in told.history]
        moments += [(told.decided_unix_ms, DECIDED)] if told.decided_unix_ms else []
        found[call.gtrid] = [(lab.events.of_unix(unix_ms / 1000), event) for unix_ms, event in moments]
    return found


def _share(shared: Path, folder: Path) -> None:
    """Make once what every stack needs, and let this one find it: initdb's result, and the programs if copied."""
    make_template(find_binaries(shared), shared)
    for made in (shared / f"template-{VERSION_DEFAULT}", shared / "programs"):
        if made.exists():
            (folder / made.name).symlink_to(made)


def _logs(lab: Lab) -> dict[str, str]:
    processes = [lab.bank.coordinator, *lab.bank.services.values()]
    logs = {lane_of(process.name): process.log_tail(_LOG_LINES) for process in processes}
    for database, cluster in lab.bank.databases.items():
        if cluster.log.exists():
            logs[f"postgres-{database}"] = cluster.log_tail(_LOG_LINES)
    return logs
