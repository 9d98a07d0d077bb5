"""One stack of the sweep: everything but the coordinator outlives the runs, and every run is judged by all before it.

An *era* is the life of one log. Whatever a client was told in it must hold to its end, so that the judges are shown all
its calls after each run, not only the last ones.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from chaos.bank_stack import SERVICES, BankPlan, BankStack
from chaos.checkers import IN_DOUBT_S_MAX, check
from chaos.evidence import Evidence
from chaos.history import Call, History, Status
from chaos.runner import logged, settled_audit
from chaos.stack import ManagedProcess, NotInTime, Stack, wait_until
from chaos.sweep.forked import ForkedCoordinator, Nursery
from chaos.sweep.points import Fault, Point
from chaos.sweep.tracing import TracedCall, log_files, options, read, struck
from chaos.workload import Teller, Transfer

PLAN = BankPlan(
    accounts=4,
    balance=1_000_000,
    fsync=False,  # the servers are not what crashes here
    coordinator_flags={"retry_cap_s": 0.5, "sweep_interval_s": 1},
)
WORKLOAD = (Transfer("pay", 1, 1, 5), Transfer("pay at once", 2, 2, 5), Transfer("refund", 3, 3, 5))

ENDS_WRITTEN_S = 1.3
"""An end record waits one second for a force to travel with; after this, all are written."""

_STAGE_S_MAX = 60.0
_TIMEOUT_S = 5.0
_OUTCOME_WAIT_S = 15.0
_MIDWAY_S = 0.01
_TRACER = re.compile(r"^TracerPid:\t0$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a stage.

    Args:
        point: where it is struck; None to count.
        output: where strace writes.
    """

    point: Point | None
    output: Path

    @property
    def injection(self) -> str:
        """As strace is told."""
        return self.point.injection if self.point else ""

    @property
    def seen(self) -> list[TracedCall]:
        """What strace saw so far."""
        return read(self.output)

    @property
    def is_held_up(self) -> bool:
        """Whether it stands right after the call that it was to be killed after."""
        return self.point is not None and self.point.series.fault is Fault.KILL_AFTER and self.is_marked

    @property
    def is_marked(self) -> bool:
        """Whether an error or a delay was injected."""
        return struck(self.seen) is not None


@dataclass(frozen=True, slots=True)
class Era:
    """The life of one log.

    Args:
        name: begins the name of each transfer in it.
        history: what clients did.
        money: what each database held when it began, in cents.
    """

    name: str
    history: History
    money: dict[str, int]


class Lane:
    """A stack whose coordinator can be struck. Between two runs the coordinator is up, reachable and without fault.

    Args:
        name: of the lane; begins the names of its transfers.
        stack: closes everything.
        strace: the beginning of its command line; empty when nothing is traced.
        environment: variables of every process's environment.
    """

    def __init__(self, name: str, stack: Stack, strace: Sequence[str], environment: Mapping[str, str]) -> None:
        services = {f"{service}-1": environment for service in SERVICES}
        self.name = name
        self.bank = BankStack(stack, replace(PLAN, coordinator_env=environment, service_env=services))
        self.restarts = 0
        self.judged = 0
        self._strace = strace
        self._stack = stack
        self._tracer: ManagedProcess | None = None
        self._eras: list[Era] = []
        self._traces = 0
        self._pending: list[asyncio.Task[list[Call]]] = []
        self._nursery = Nursery(stack.path, env=environment, cwd=self.bank.coordinator.cwd)
        self.coordinator = self.bank.coordinator = ForkedCoordinator(self.bank.coordinator, self._nursery)

    async def begin(self) -> None:
        """Start everything."""
        await asyncio.to_thread(self._stack.start, self._nursery)
        await asyncio.to_thread(self._stack.start, self.bank)
        await self.new_era()

    async def new_era(self) -> None:
        """What was acknowledged before counts no more, for its log is gone."""
        money = await asyncio.to_thread(self.bank.money)
        self._eras.append(Era(f"{self.name}{len(self._eras)}", History(time.monotonic), money))

    @property
    def era(self) -> Era:
        """The life of the log as it is."""
        return self._eras[-1]

    # -- the coordinator -------------------------------------------------------------------------------------------

    async def start(self, *, each_checkpoint: bool = False) -> None:
        """Start the coordinator without fault, and wait until everybody reaches everybody."""
        self.coordinator.each_checkpoint = each_checkpoint
        self.restarts += 1
        await asyncio.to_thread(self.bank.start_coordinator)
        await asyncio.to_thread(self.bank.wait_reachable)

    async def kill(self) -> None:
        """Kill the coordinator, if it runs, and what traces it."""
        await asyncio.to_thread(self.coordinator.kill)

    async def kill_midway(self) -> None:
        """Kill the coordinator while transactions are under way."""
        self.begin_transfers()
        await asyncio.sleep(_MIDWAY_S)
        await self.kill()

    async def stop(self) -> None:
        """Let the coordinator end in good order."""
        await asyncio.to_thread(self.coordinator.stop, _STAGE_S_MAX)

    def remove_log(self) -> None:
        """Remove the log and all beside it."""
        for file in log_files(self.bank.log):
            if not file.is_dir():
                file.unlink(missing_ok=True)

    # -- tracing ---------------------------------------------------------------------------------------------------

    def attempt(self, point: Point | None) -> Attempt:
        """A run to come, with a place for strace's output."""
        self._traces += 1
        return Attempt(point, self.bank.folder / f"trace-{self._traces}")

    async def start_standing(self, failpoint: str = "") -> None:
        """Start the coordinator, to stand still: before it does anything, or at a failpoint.

        Raises:
            NotInTime: it does not come to stand.
        """
        self.coordinator.stands = not failpoint
        self.start_armed(failpoint)
        self.coordinator.stands = False
        await asyncio.to_thread(wait_until, lambda: self.coordinator.paused, _STAGE_S_MAX, "it does not stand still")

    def start_armed(self, failpoint: str) -> None:
        """Start the coordinator with a failpoint; it is not waited for."""
        self.restarts += 1
        self.bank.start_coordinator(failpoint=failpoint, wait=False)

    @asynccontextmanager
    async def traced(self, attempt: Attempt) -> AsyncIterator[None]:
        """Attach strace to the coordinator, for the time of a block: in it, strace counts. A standing one goes on."""
        pid = self.coordinator.pid
        argv = [*self._strace, *options(self.bank.log, attempt.output, attempt.injection), "-p", str(pid)]
        log = attempt.output.with_suffix(".strace")
        tracer = ManagedProcess("strace", argv, log=log, ready=lambda: _is_traced(pid))
        self._tracer = tracer
        try:
            await asyncio.to_thread(tracer.start)
            self.coordinator.resume()
            yield
        finally:
            self._tracer = None
            await asyncio.to_thread(tracer.close)

    async def watch(self, attempt: Attempt, done: Callable[[], bool]) -> None:
        """Wait until the coordinator has ended, or something is done; kill it where it is held up.

        Raises:
            NotInTime: neither came.
        """

        def over() -> bool:
            if attempt.is_held_up and self.coordinator.alive:
                self._kill_held_up()
            return not self.coordinator.alive or done()

        await asyncio.to_thread(wait_until, over, _STAGE_S_MAX, lambda: f"{attempt.point}: its stage did not end")

    def _kill_held_up(self) -> None:
        """Kill the coordinator, and at once the tracer that holds its call: it would see to nothing else meanwhile."""
        self.coordinator.send(signal.SIGKILL)
        if self._tracer is not None:
            self._tracer.kill()
        self.coordinator.kill()

    async def watch_ends(self, attempt: Attempt) -> None:
        """Wait until every end record is written; in that time a coordinator that was struck has also left."""
        until_s = time.monotonic() + ENDS_WRITTEN_S
        await self.watch(attempt, lambda: time.monotonic() >= until_s)

    @asynccontextmanager
    async def services_paused(self) -> AsyncIterator[None]:
        """Nobody but the coordinator does anything."""
        services = list(self.bank.services.values())
        for service in services:
            await asyncio.to_thread(service.pause)
        try:
            yield
        finally:
            for service in services:
                service.resume()

    # -- clients ---------------------------------------------------------------------------------------------------

    def begin_transfers(self, transfers: Sequence[Transfer] = WORKLOAD) -> asyncio.Task[list[Call]]:
        """Make transfers one after the other, in the background; ``judge`` waits for them."""
        task = asyncio.get_running_loop().create_task(self._transfers(transfers))
        self._pending.append(task)
        return task

    async def _transfers(self, transfers: Sequence[Transfer]) -> list[Call]:
        addresses, history = self.bank.client_addresses(), self.era.history
        async with Teller(addresses, history, name=self.era.name, outcome_wait_s=_OUTCOME_WAIT_S) as teller:
            return [await teller.make(transfer, timeout_s=_TIMEOUT_S) for transfer in transfers]

    async def goes_on(self) -> list[str]:
        """What speaks against a coordinator that survived: it must reach everybody, and commit."""
        try:
            await asyncio.to_thread(self.bank.wait_reachable)
        except NotInTime as late:
            return [f"it survived, and is not reachable: {late}"]
        await self.finish_transfers()
        (call,) = await self.begin_transfers(WORKLOAD[:1])
        return [] if call.status is Status.OK else [f"it survived, and does not commit: {call.error}"]

    async def finish_transfers(self) -> None:
        """Wait until every client has its answer, or has given up asking."""
        pending, self._pending = self._pending, []
        await asyncio.gather(*pending)

    # -- judging ---------------------------------------------------------------------------------------------------

    async def judge(self) -> list[str]:
        """Let everything settle, and ask the judges about all that happened in this era. Returns what they found."""
        await self.finish_transfers()
        try:
            await asyncio.to_thread(self.bank.wait_nothing_prepared, IN_DOUBT_S_MAX)
        except NotInTime as late:
            return [f"branches are still in doubt: {late}"]
        await self._settle()
        evidence = await asyncio.to_thread(self._evidence)
        self.judged += len(evidence.calls)
        return [f"{rule}: {words}" for rule, found in check(evidence).items() for words in found]

    async def _settle(self) -> None:
        history = self.era.history
        if not history.unresolved():
            return
        async with Teller(self.bank.client_addresses(), history, name=self.era.name) as teller:
            for call in history.unresolved():
                await teller.settle(call.number)

    def _evidence(self) -> Evidence:
        calls = self.era.history.calls
        mine = f"{self.era.name}-"
        audit = settled_audit(self.bank)
        return Evidence(
            calls=calls,
            journal=[line for line in self.bank.journal() if line.transfer.startswith(mine)],
            money_before=self.era.money,
            money_after=self.bank.money(),
            logged=logged(self.bank.admin, calls),
            left_prepared=[f"{one.database}: {one.gid}" for one in self.bank.prepared()],
            audit_verdict=audit.verdict,
            audit_differences=[f"{one.gtrid} {one.bqual}: {one.log}, {one.resource}" for one in audit.differences],
        )

    @property
    def acknowledged(self) -> int:
        """How many transactions clients know to be committed."""
        return sum(call.known is Status.OK for era in self._eras for call in era.history.calls)

    @property
    def asked(self) -> int:
        """How many transactions clients asked for."""
        return sum(len(era.history.calls) for era in self._eras)


def _is_traced(pid: int) -> bool:
    """Whether a tracer holds every thread of a process."""
    try:
        return not any(_TRACER.search((task / "status").read_text()) for task in Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:  # a thread, or the process, has just ended
        return False
