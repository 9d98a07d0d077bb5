"""`handfast chaos own FILE`: the lab's faults and judgement on services that are not the bank.

The lab starts the user's processes, puts its proxies where the file says, runs the load while the faults come and go,
and then asks what it asks of itself: is nothing in doubt 30 s after healing, does the audit say atomic, and does the
user's own invariant, a sum over SQL queries, still hold?
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import psycopg

from chaos.admin import Admin
from chaos.checkers import IN_DOUBT_S_MAX
from chaos.events import EventLog, Listener
from chaos.own_plan import FaultPart, InvariantPart, LinkPart, OwnPlan, read_plan
from chaos.scenario import Finding
from chaos.stack import ManagedProcess, NotInTime, PostgresCluster, Stack, wait_until
from chaos.toxiproxy import Toxiproxy, ToxiproxyServer, Wire

_CALL_S_MAX = 60.0
_READY_S_MAX = 30.0
_CONNECT_S_MAX = 5


@dataclass(frozen=True, slots=True)
class OwnResult:
    """What a run on the user's services showed.

    Args:
        findings: what must hold, and what was seen.
        calls: how the load's commands ended: exit code, and how often.
    """

    findings: tuple[Finding, ...]
    calls: Counter[int]

    @property
    def passed(self) -> bool:
        """Whether all holds."""
        return all(finding.holds for finding in self.findings)


class OwnStack:
    """The user's processes and links, as faults reach them.

    Args:
        plan: says what there is.
        stack: closes it all.
    """

    def __init__(self, plan: OwnPlan, stack: Stack) -> None:
        self.log = stack.path / "handfast.db"
        server = stack.start(ToxiproxyServer(stack.path))
        self._wires = {(link.source, link.target): _wire(server.api, link) for link in plan.link}
        self._processes = {
            part.name: stack.start(
                ManagedProcess(
                    part.name,
                    part.command,
                    log=stack.path / f"{part.name}.log",
                    env={"PATH": search_path(), **part.env},
                    ready=part.ready,
                    ready_timeout_s=_READY_S_MAX,
                )
            )
            for part in plan.process
        }

    def wire(self, source: str, target: str) -> Wire:
        """The proxies on a link. Raises LookupError when the file has none."""
        return self._wires[source, target]

    def process(self, name: str) -> ManagedProcess:
        """A process. Raises LookupError when the file has none."""
        return self._processes[name]

    def start_process(self, name: str) -> None:
        """Start a process again."""
        self._processes[name].start()

    def postgres(self, name: str) -> PostgresCluster:
        """The user's databases are the user's: the lab does not stop them."""
        raise LookupError(f"the database {name} is not the lab's to stop")


def run_own(path: Path, listener: Listener) -> OwnResult:
    """Run the plan in a file.

    Args:
        path: of the TOML file; see chaos.own_plan.
        listener: is told of each event as it happens.

    Raises:
        PlanInvalid: the file is wrong.
        StackError: a process did not start.
    """
    with Stack() as stack:
        plan = read_plan(path, {**os.environ, "FOLDER": str(stack.path)})
        own = OwnStack(plan, stack)
        events = EventLog(listener)
        before = {invariant.name: _total(invariant) for invariant in plan.invariant}
        load = Load(plan)
        load.start()
        _strike(plan, own, events)
        load.join()
        findings = [*_settled(Admin(plan.coordinator)), *(_kept(one, before[one.name]) for one in plan.invariant)]
        return OwnResult(tuple(findings), load.ended)


class Load(threading.Thread):
    """Runs the user's command, one after another, for so many seconds."""

    def __init__(self, plan: OwnPlan) -> None:
        super().__init__(name="own-load", daemon=True)
        self.ended: Counter[int] = Counter()
        self._plan = plan.load

    def run(self) -> None:
        until_s = time.monotonic() + self._plan.seconds
        environment = {**os.environ, "PATH": search_path(), **self._plan.env}
        while time.monotonic() < until_s:
            time.sleep(self._plan.pause_s)
            number = str(self.ended.total())
            command = [part.replace("{number}", number) for part in self._plan.command]
            done = subprocess.run(command, env=environment, capture_output=True, timeout=_CALL_S_MAX, check=False)
            self.ended[done.returncode] += 1


def _wire(api: Toxiproxy, link: LinkPart) -> Wire:
    name = f"{link.source}-to-{link.target}"
    calls = api.create(link.upstream, name, listen=link.listen)
    if link.frames is None:
        return Wire(calls)
    return Wire(calls, api.create(link.frames.upstream, f"{name}-frames", listen=link.frames.listen))


def search_path() -> str:
    """PATH with this interpreter's programs first: `python` and `handfast` mean the ones that run the lab."""
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))


def _strike(plan: OwnPlan, own: OwnStack, events: EventLog) -> None:
    """Let each fault act from its moment to its end; each on a thread, for they may overlap.

    Raises what the first fault that failed raised, when all have ended.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(plan.fault)), thread_name_prefix="own-fault") as pool:
        for ended in [pool.submit(_act, part, own, events) for part in plan.fault]:
            ended.result()


def _act(part: FaultPart, own: OwnStack, events: EventLog) -> None:
    fault = part.fault()
    time.sleep(part.at_s)
    fault.start(own)
    events.note(fault.lanes[0], fault.label, fault.words)
    time.sleep(part.for_s)
    fault.heal(own)
    events.note(fault.lanes[0], f"{fault.label}: healed after {part.for_s:g} s")


def _settled(admin: Admin) -> list[Finding]:
    """Nothing in doubt, and an audit that finds nothing."""
    try:
        wait_until(lambda: not _open(admin), IN_DOUBT_S_MAX, "branches are still in doubt")
        left = 0
    except NotInTime:
        left = _open(admin)
    verdict = admin.audit().verdict
    return [
        Finding(left == 0, "nothing in doubt 30 s after healing", f"{left} branches in doubt"),
        Finding(verdict == "atomic", "the audit says atomic", f"the audit says {verdict}"),
    ]


def _open(admin: Admin) -> int:
    """How many branches are in doubt or can't be asked for; 1 while the coordinator does not answer."""
    try:
        answer = admin.in_doubt()
    except grpc.RpcError:
        return 1
    return len(answer.branches) + len(answer.unreachable)


def _kept(invariant: InvariantPart, before: int) -> Finding:
    after = _total(invariant)
    return Finding(after == before, invariant.name, f"{before} before, {after} after")


def _total(invariant: InvariantPart) -> int:
    """The sum of the answers to an invariant's queries."""
    total = 0
    for query in invariant.queries:
        with psycopg.connect(query.dsn, autocommit=True, connect_timeout=_CONNECT_S_MAX) as connection:
            row = connection.execute(query.sql.encode()).fetchone()
            total += int(row[0] or 0) if row else 0
    return total
