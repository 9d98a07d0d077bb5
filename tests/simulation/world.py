"""One run: processes, network, disk and databases put together, hurt as planned, and judged.

A run has three acts. In the first the clients work and the faults strike. At ``FAULTS_END_S`` everything is mended:
partitions heal, whatever is down starts, nothing else goes wrong. Then it must come to rest by itself within
``REST_WITHIN_S`` of virtual time: no branch in doubt, no lock held, no call unanswered. At last an auditor asks after
every transaction, the coordinator is killed once more, and the auditor asks again.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from traceback import extract_tb
from typing import Any
from unittest.mock import patch

from coordinator.log.store import LogBroken
from coordinator.runtime import in_memory
from handfast.xid import Xid
from participant.protocol import memory
from tests.simulation import injectors
from tests.simulation.checkers import Checkers, Violation
from tests.simulation.clients import Auditor, ClientProcess
from tests.simulation.disk import SimulatedLog
from tests.simulation.faults import Fault, Operator
from tests.simulation.loop import ProcessLoop, Scheduler
from tests.simulation.network import Network
from tests.simulation.postgres import Database, Transaction
from tests.simulation.processes import CLIENT, COORDINATOR, CoordinatorProcess, ParticipantProcess, Process
from tests.simulation.trace import COORDINATOR_ID, Trace
from tests.simulation.workload import BALANCE, FAULTS_END_S, ROWS, Scenario

REST_WITHIN_S = 240.0
"""How long everything may take to come to rest once nothing goes wrong any more. A Commit that was lost is given up
after 30 s and sent again at most 30 s later, a sweep comes every 30 s and asks for up to 10, and each of these may find
that the one before it has just begun."""

LOOK_EVERY_S = 0.5
RUN_S_MAX = 4.0
"""How much processor time a run may take; it takes hundredths of a second."""

FOREIGN = (
    "a_hand_made_one",
    "handfast_0ther000-1-lp0000-1_{resource}.x1",
    "handfast_{ours}-zz-lp0000-1_{resource}.x1",
)
"""Prepared transactions that nobody here may touch: by hand, another coordinator's, and of a later epoch of ours."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run.

    Args:
        scenario: what was run.
        violation: the first broken rule; None when none was.
        trace: what happened.
        virtual_s: how much time passed in it.
        steps: how many callbacks ran.
        faults: how many faults struck, by kind.
        outcomes: what clients were told, by outcome.
    """

    scenario: Scenario
    violation: Violation | None
    trace: Trace
    virtual_s: float
    steps: int
    faults: Counter[str]
    outcomes: Counter[str]


class World:
    """Everything in a run.

    Args:
        scenario: what is run.
        traced: whether the processes write traces, as HANDFAST_TRACE has them do (``lines``).
    """

    def __init__(self, scenario: Scenario, *, traced: bool = False) -> None:
        self.scenario = scenario
        self.lines: list[str] | None = [] if traced else None
        self.random = Random(scenario.seed)
        self.scheduler = Scheduler()
        self.loops: list[ProcessLoop] = []
        self.processes: dict[str, Process] = {}
        self.history = Trace()
        self.faults: Counter[str] = Counter()
        self.operators: list[Operator] = []
        self.over = False
        self.mending = False
        self._own = ProcessLoop(self.scheduler, "world", self.on_defect)
        self.observe = Checkers(self)
        self.network = Network(self)
        self.log = SimulatedLog(self, COORDINATOR_ID, self.on_log_broken)
        settings = scenario.settings
        balances = dict.fromkeys(ROWS, BALANCE)
        self.databases = {name: Database(self, name, balances, settings.slots) for name in scenario.databases}
        self.coordinator = CoordinatorProcess(self, COORDINATOR)
        self._add(self.coordinator)
        for name in scenario.participants:
            self._add(ParticipantProcess(self, name, name.partition("-")[0]))
        self.client = ClientProcess(self, CLIENT, scenario.plans)
        self._add(self.client)
        self.auditor = Auditor(self)

    @property
    def now_s(self) -> float:
        """The time."""
        return self.scheduler.now_s

    # -- what the parts of it use ------------------------------------------------------------------------------------

    def later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Do something in a while, whoever has died by then."""
        self._own.call_later(delay_s, callback, *args)

    def trace(self, who: str, words: str, *args: object) -> None:
        """Write a line."""
        if not self.over:
            self.history.note(self.now_s, who, words, *args)

    def write(self, line: str) -> None:
        """The file that every process appends its trace to: see handfast.trace.Sink."""
        if self.lines is not None and not self.over:
            self.lines.append(line)

    def count_fault(self, fault: Fault, words: str) -> None:
        """A fault strikes."""
        if not self.over:
            effect = getattr(fault, "effect", "") or getattr(fault, "when", "")
            self.faults[f"{type(fault).__name__} {effect}".rstrip()] += 1
            self.trace("FAULT", "%s", words)

    def on_defect(self, who: str, problem: str) -> None:
        """Code under test failed where nobody expects it to."""
        text = re.sub(r"0x[0-9a-f]+", "0x…", problem)
        self.observe.broken("no defect shows", "", f"{who}: {text}")

    def on_log_broken(self, broken: LogBroken) -> None:
        """The coordinator leaves at once."""
        self.trace(COORDINATOR, "the log is broken: %s", str(broken))
        self.crash(COORDINATOR, 0.5)

    def process_of(self, name: str) -> Any:
        """A process, by name."""
        return self.processes[name]

    # -- life and death ----------------------------------------------------------------------------------------------

    def crash(self, name: str, down_s: float) -> None:
        """Kill a process; it starts again after a while."""
        process = self.processes[name]
        if self.over or not process.loop.alive:
            return
        process.loop.unheard.extend(process.loop.parked or ())
        process.loop.alive, process.loop.parked = False, None
        self.trace(name, "dies")
        self.network.on_process_gone(process.loop)
        for database in self.databases.values():
            database.on_process_gone(process.loop)
        process.on_dead()
        self.later(0.05 if self.mending else down_s, self.start, name)

    def pause(self, loop: ProcessLoop, fault: Fault, for_s: float) -> None:
        """Stop a process, and let it go on after a while."""
        if loop.alive and loop.parked is None and not self.over:
            self.count_fault(fault, f"{loop.name} is stopped for {for_s} s")
            loop.pause()
            self.later(for_s, lambda: loop.resume() if loop.parked is not None else None)

    def start(self, name: str) -> None:
        """Start a process, unless it runs."""
        process = self.processes[name]
        if not process.loop.alive:
            self.trace(name, "starts")
            process.start()

    def on_crash_due(self, process: Process) -> None:
        """A process has come to the step instead of which it dies."""
        injectors.crash_at_step(self, process)

    # -- a run -------------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Run it to the end."""
        with _errors_to(self), _no_endless_step(), _folded_at_once():
            try:
                self._act()
            except StepDoesNotEnd as endless:
                where = " ← ".join(f"{frame.name}" for frame in reversed(extract_tb(endless.__traceback__)[-4:-1]))
                self.observe.broken("every step ends", "", f"one goes round for ever, in {where}")
            self.over = True
            self.scheduler.drain([self._own, *self.loops])
        told = Counter(outcome for outcomes in self.observe.told.values() for outcome in outcomes)
        violation = self.observe.violations[0] if self.observe.violations else None
        return Report(
            *(self.scenario, violation, self.history, self.now_s, self.scheduler.steps, self.faults, told),
        )

    def _act(self) -> None:
        self._prepare_foreign()
        injectors.arm(self)
        for name in list(self.processes):
            self.start(name)
        self.scheduler.run_until(FAULTS_END_S)
        self._mend()
        if not self._comes_to_rest():
            return
        self.observe.at_rest()
        self._audit()
        if self.scheduler.stopped:
            return
        self.crash(COORDINATOR, 0.05)
        self.scheduler.run_until(self.now_s + 3.0)
        self._audit()
        if self._comes_to_rest():
            self.observe.at_rest()

    def _add(self, process: Process) -> None:
        self.processes[process.name] = process

    def _prepare_foreign(self) -> None:
        for name, database in self.databases.items():
            for gid in FOREIGN:
                gid = gid.format(resource=name, ours=COORDINATOR_ID)
                database.prepared[gid] = Transaction(gid, 1.0, 1.0, xid=database.next_xid)
                database.statuses[database.next_xid] = "in progress"
                database.next_xid += 1
            database.slots += len(FOREIGN)

    def _mend(self) -> None:
        """From here on nothing goes wrong any more."""
        self.trace("WORLD", "nothing goes wrong any more")
        self.mending = True
        injectors.disarm(self)
        for database in self.databases.values():
            database.start()
        for ends in list(self.network.cuts):
            while self.network.is_cut(ends):
                self.network.heal(ends)
        for name, process in self.processes.items():
            if process.loop.parked is not None:
                process.loop.resume()
            self.start(name)

    def _comes_to_rest(self) -> bool:
        end_s = self.now_s + REST_WITHIN_S
        while not self.scheduler.stopped:
            unrest = self._unrest()
            if not unrest:
                return True
            if self.now_s >= end_s:
                gtrid = next((gtrid for gtrid in self.observe.numbers if gtrid in unrest), "")
                self.observe.broken("comes to rest", gtrid, unrest)
                return False
            self.scheduler.run_until(self.now_s + LOOK_EVERY_S)
        return False

    def _unrest(self) -> str:
        """What still moves, or waits."""
        if not all(process.loop.alive for process in self.processes.values()) or not hasattr(
            self.coordinator, "requests"
        ):
            return "a process is down"
        if self.client.open_calls:
            return f"calls unanswered: {', '.join(self.client.open_calls)}"
        for name, database in self.databases.items():
            foreign = {gid.format(resource=name, ours=COORDINATOR_ID) for gid in FOREIGN}
            if missing := foreign - set(database.prepared):
                self.observe.broken("recovery leaves others alone", "", f"{', '.join(sorted(missing))} was ended")
            if left := [gid for gid in database.prepared if gid not in foreign and not self._is_undecidable(gid)]:
                return f"{name} holds in doubt: {', '.join(left)}"
            undecidable = [gid for gid in database.prepared if gid not in foreign and self._is_undecidable(gid)]
            if (held := database.locked_rows) and not undecidable:
                return f"{name} holds locks on {', '.join(held)}"
        if self.coordinator.driver.transactions:
            return f"transactions not ended: {', '.join(self.coordinator.driver.transactions)}"
        return ""

    def _is_undecidable(self, gid: str) -> bool:
        """Older than the log's memory: left to a person, as documented."""
        gtrid = gid.split("_")[1]
        made_unix_ms = int(gtrid.split("-")[2], 36)
        return gtrid not in self.observe.decided and made_unix_ms < self.log.horizon_unix_ms

    def is_left_to_a_person(self, xid: Xid) -> bool:
        """Whether a branch is prepared, and nobody but a person may end it."""
        database = self.databases.get(xid.resource)
        return database is not None and xid.gid() in database.prepared and self._is_undecidable(xid.gid())

    def _audit(self) -> None:
        """Ask after every transaction."""
        if self.auditor.loop.alive:
            self.auditor.loop.alive = False
            self.network.on_process_gone(self.auditor.loop)
        self.auditor.start()
        end_s = self.now_s + REST_WITHIN_S
        while not self.auditor.done and not self.scheduler.stopped and self.now_s < end_s:
            self.scheduler.run_until(self.now_s + LOOK_EVERY_S)
        if not self.auditor.done and not self.scheduler.stopped:
            self.observe.broken("comes to rest", "", "the auditor's questions are not answered")


class _Errors(logging.Handler):
    """Takes logged exceptions for what they are: defects."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.CRITICAL:
            problem = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
            told = f"{type(problem).__name__}: {problem}" if problem is not None else ""
            self._world.on_defect(record.name, f"{record.getMessage()} {told}")


class StepDoesNotEnd(KeyboardInterrupt):
    """A step has taken seconds of processor time; tasks let this one through."""


def _on_endless_step(number: int, frame: object) -> None:
    raise StepDoesNotEnd


@contextlib.contextmanager
def _folded_at_once() -> Iterator[None]:
    """What has ended is folded with many others at a time, and in a scenario there are few."""
    with patch.object(in_memory, "FOLDED_TOGETHER", 1), patch.object(memory, "FOLDED_TOGETHER", 1):
        yield


@contextlib.contextmanager
def _no_endless_step() -> Iterator[None]:
    """End a run of which some step goes round for ever; the processor's time is looked at, not the wall's."""
    before = signal.signal(signal.SIGVTALRM, _on_endless_step)
    signal.setitimer(signal.ITIMER_VIRTUAL, RUN_S_MAX)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


LOGGERS = ("coordinator", "participant", "handfast")


@contextlib.contextmanager
def _errors_to(world: World) -> Iterator[None]:
    """Let no line of a log be written during a run, and no garbage be collected at a moment of its own choice."""
    handler = _Errors(world)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    collecting = gc.isenabled()
    gc.disable()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        if collecting:
            gc.enable()


def run(scenario: Scenario) -> Report:
    """Run a scenario."""
    return World(scenario).run()


def run_traced(scenario: Scenario) -> tuple[Report, list[str], frozenset[str]]:
    """Run a scenario.

    Returns:
        What came of it, what its processes traced, and the transactions in which somebody meddled.
    """
    world = World(scenario, traced=True)
    report = world.run()
    return report, list(world.lines or ()), frozenset(world.observe.by_hand)
