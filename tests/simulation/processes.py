"""The processes of a run: what production code each is made of, put together as its own program does it.

The coordinator is ``CoordinatorServer`` without gRPC and signals, a participant is ``Participant`` without gRPC, and
the client is ``TransactionManager`` itself. Only the four contracts are replaced: the log (``disk``), clocks (here),
the way to participants and to the coordinator (``network``, below the real ``Links`` and ``Link``), and the connections
to Postgres (``psycopg_model``, below the real resource manager).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from coordinator.protocol import events as e
from coordinator.protocol.cohort import COMMITTING, Cohort
from coordinator.protocol.states import Cause, Decision, TransactionState
from coordinator.rpc.coordinator_service import Dispatch
from coordinator.runtime.cohorts import Cohorts
from coordinator.runtime.directory import Directory
from coordinator.runtime.driver import Driver
from coordinator.runtime.failpoints import Failpoints
from coordinator.runtime.gtrids import Gtrids
from coordinator.runtime.links import Links, _Link
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.recovery import Recovery
from coordinator.runtime.requests import Requests
from coordinator.runtime.resolution import Resolution
from coordinator.runtime.row_requests import RowRequests
from coordinator.runtime.running_cohort import RunningCohort
from coordinator.runtime.trace import ProtocolTrace
from handfast import context
from handfast.catalog import HandfastFault
from handfast.client import TransactionManager
from handfast.trace import Owner, Trace
from handfast.v1 import coordinator_pb2 as c
from handfast.xid import make_bqual
from participant.config import ParticipantOptions
from participant.driver import Driver as BranchDriver
from participant.link import Link
from participant.operations import Operations
from participant.recovery import Recovery as BranchRecovery
from participant.server import Host, ParticipantServicer
from tests.simulation.loop import ProcessLoop
from tests.simulation.network import Channel, Network, WorkDone, WorkRequest
from tests.simulation.psycopg_model import UPDATE, SimulatedPostgres
from tests.simulation.streams import SimulatedStream

if TYPE_CHECKING:
    from tests.simulation.world import World

START_UNIX_MS = 1_700_000_000_000
COORDINATOR = "coordinator"
CLIENT = "client"


def address_of(process: str) -> str:
    """Where a process listens."""
    return f"{process}:1"


class SimulatedClock:
    """All three contracts for time and chance (the coordinator's, the participant's, the client's) for one process.

    Args:
        process: whose it is.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._random = process.world.random

    def now_s(self) -> float:
        return self._process.world.now_s + self._process.origin_s

    monotonic_s = now_s

    def unix_ms(self) -> int:
        return START_UNIX_MS + int(1000 * (self._process.world.now_s + self._process.wall_offset_s))

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self._process.loop.call_later(max(0.0, delay_s), callback)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    def jitter(self) -> float:
        return self._random.random()

    def jittered(self, delay_s: float) -> float:
        return delay_s * self._random.uniform(0.5, 1.0)

    def instance_name(self) -> str:
        return f"{self._process.name}-{self._process.life}"

    def coordinator_id(self) -> str:
        raise AssertionError("the log has the id already")


class Process:
    """One process: a name, and one life after the other.

    Args:
        world: where it is.
        name: its name, which is its machine's too.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.life = 0
        self.origin_s = 1000.0 + 7.0 * len(world.processes)
        self.wall_offset_s = 0.0
        self.clock = SimulatedClock(self)
        self.loop = ProcessLoop(world.scheduler, name, world.on_defect)
        self.loop.alive = False

    def start(self) -> None:
        """Begin a new life."""
        self.life += 1
        steps, crash_at_step = self.loop.steps, self.loop.crash_at_step
        self.loop = ProcessLoop(self.world.scheduler, self.name, self.world.on_defect)
        # Steps are counted over all lives, so that a planned crash finds the second one too.
        self.loop.steps, self.loop.crash_at_step = steps, crash_at_step
        self.loop.on_crash_due = self.on_crash_due
        self.world.loops.append(self.loop)
        self.loop.create_task(self.main()).add_done_callback(self._on_main_done)

    def _on_main_done(self, main: asyncio.Task[Any]) -> None:
        problem = None if main.cancelled() else main.exception()
        if problem is not None:
            self.world.on_defect(self.name, f"it ends: {type(problem).__name__}: {problem}")

    def on_crash_due(self) -> None:
        """The step has come instead of which it crashes."""
        self.world.on_crash_due(self)

    def trace(self, role: str, name: str) -> Trace | None:
        """What this life writes its trace to; None when none is wanted."""
        if self.world.lines is None:
            return None
        clock = self.clock
        return Trace(self.world, Owner(role, name, lambda: 1000 * clock.unix_ms(), clock.monotonic_s))

    async def main(self) -> None:
        """What it does."""
        raise NotImplementedError

    def on_dead(self) -> None:
        """What is to be done about its death that is not the same for all."""


class _Links(Links):
    """The coordinator's links over the simulated network."""

    def __init__(self, network: Network, loop: ProcessLoop, directory: Directory, on_up: Callable[[str], None]) -> None:
        super().__init__(directory, on_up)
        self._network = network
        self._own_loop = loop

    def _make_link(self, address: str, resource: str) -> _Link:
        channel: Any = self._network.open(self._own_loop, address)
        watch = self._own_loop.create_task(self._watch(address, channel))
        return _Link(channel, SimulatedStream(channel), watch)


class CoordinatorProcess(Process):
    """The coordinator."""

    requests: Requests
    driver: Driver
    resolution: Resolution
    rows: RowRequests

    async def main(self) -> None:
        settings, world = self.world.scenario.settings, self.world
        identity = await world.log.open()
        await asyncio.sleep(0.01)
        directory = Directory(reversed(world.log.participants()))
        links = _Links(world.network, self.loop, directory, lambda address: self.recovery.on_link_up(address))
        options = DriverOptions(
            finished_kept_max=settings.finished_kept_max,
            unrecorded_kept_max=settings.unrecorded_kept_max,
            retention_s=settings.retention_s,
            block_lifetime_s=settings.block_lifetime_s,
        )
        self.driver = Driver(
            world.log, links, self.clock, self.clock, options, Failpoints(), lambda broken: world.on_log_broken(broken)
        )
        if (trace := self.trace("coordinator", identity.coordinator_id)) is not None:
            self.driver.trace = ProtocolTrace(trace, identity.coordinator_id, identity.epoch)
            self.driver.trace.started()
        started_unix_ms = world.log.life_started_unix_ms(identity.epoch) or 0
        gtrids = Gtrids(identity.coordinator_id, identity.epoch, self.clock, options.block_lifetime_s, started_unix_ms)
        self.links = links
        self.requests = Requests(self.driver, gtrids, directory)
        self.rows = RowRequests(self.requests, Cohorts(self.driver))
        self.recovery = Recovery(self.requests, links, self.clock, settings.sweep_interval_s)
        self.resolution = Resolution(self.requests, links)
        self.recovery.start()
        links.connect()
        dispatch = Dispatch(self.requests, self.rows)
        world.network.listen(address_of(self.name), self.loop, dispatch, dispatch.columns)
        world.trace(self.name, "serves, epoch %d", identity.epoch)
        await self._clean_up_for_ever(settings.retention_s)

    # -- what the checkers ask: the driver's own answers would take rows out of their cohorts ------------------------

    def drives(self, gtrid: str) -> bool:
        """Whether a transaction is in memory, ended ones included."""
        return gtrid in self.driver.transactions or gtrid in self.driver.finished

    def decision_of(self, gtrid: str) -> Decision | None:
        """What is decided of a transaction that has not ended; None when nothing is, or it is not in memory."""
        transactions = self.driver.transactions
        if gtrid in transactions.single:
            return transactions.single[gtrid].transaction.decision
        row = self._row(gtrid)
        return Decision.COMMIT if row is not None and row[0].stages[row[1]] == COMMITTING else None

    def deadline_s(self, gtrid: str) -> float:
        """Past which moment a transaction that has not ended may not decide commit; infinite when there is none."""
        transactions = self.driver.transactions
        if gtrid in transactions.single:
            return transactions.single[gtrid].transaction.deadline_s
        row = self._row(gtrid)
        return float("inf") if row is None else row[0].deadline_s

    def _row(self, gtrid: str) -> tuple[Cohort, int] | None:
        running = self.driver.transactions.rows.get(gtrid)
        if not isinstance(running, RunningCohort):
            return None
        return running.cohort, running.cohort.gtrids.index(gtrid)

    async def _clean_up_for_ever(self, retention_s: float) -> None:
        interval_s = min(3600.0, retention_s / 4)
        while True:
            await asyncio.sleep(interval_s)
            horizon_unix_ms = self.clock.unix_ms() - int(1000 * retention_s)
            self.world.log.forget_before(max(horizon_unix_ms, 0), lambda result: None)

    async def stop(self) -> None:
        """Refuse new work, roll back what is active, a second later what is undecided, finish the rest, and close."""
        self.requests.stopping = True
        self._roll_back(TransactionState.ACTIVE)
        for tenth in range(20):
            if self.driver.transactions:
                await asyncio.sleep(0.1)
            if tenth == 9:
                self._roll_back(TransactionState.PREPARING)
        await self.recovery.close()
        self.driver.close()
        self.rows.cohorts.close()
        await self.links.close()
        await self.world.log.close()

    def _roll_back(self, state: TransactionState) -> None:
        for running in list(self.driver.transactions.values()):
            if running.transaction.state is state:
                self.driver.feed(running, e.RollbackRequested(Cause.OPERATOR, "the coordinator is stopping"))

    def on_dead(self) -> None:
        self.world.log.crash()


class _CoordinatorLink(Link):
    """A participant's link over the simulated network."""

    def on_network(self, network: Network, loop: ProcessLoop) -> Self:
        """Say where it is."""
        self._network, self._own_loop = network, loop
        return self

    async def open(self) -> None:
        channel: Any = self._network.open(self._own_loop, self._address)
        self._stream = SimulatedStream(channel)
        self._task = self._own_loop.create_task(self._keep_registered(channel))


class ParticipantProcess(Process):
    """One instance of a service over one database.

    Args:
        world: where it is.
        name: its name.
        resource: its resource.
    """

    def __init__(self, world: World, name: str, resource: str) -> None:
        super().__init__(world, name)
        self.resource = resource

    async def main(self) -> None:
        world, settings = self.world, self.world.scenario.settings
        options = ParticipantOptions(connections_max=settings.connections, inquire_after_s=settings.inquire_after_s)
        self.instance = self.clock.instance_name()
        self.bqual = make_bqual(self.resource, self.instance)
        manager = SimulatedPostgres(world.databases[self.resource], self.loop, options, self.clock)
        operations: Operations[Any] = Operations()
        operations.add("change", _change)
        link = _CoordinatorLink(
            address_of(COORDINATOR), None, self._registration, options, self.clock, self._on_registered
        ).on_network(world.network, self.loop)

        async def enlist(gtrid: str, deadline_s: float) -> None:
            await link.enlist(gtrid, self.resource, self.instance, deadline_s)

        self.driver: BranchDriver[Any] = BranchDriver(
            *(self.bqual, manager, operations, options, self.clock, enlist), trace=self.trace("participant", self.bqual)
        )
        self.recovery = BranchRecovery(self.resource, self.driver, link.inquire, options, self.clock)
        servicer = ParticipantServicer()
        await manager.open(self.bqual)
        servicer.attach(Host(self.resource, self.driver, self.recovery, self.clock))
        self.recovery.open()
        await link.open()

        def dispatch(request: Any, reply: Callable[[Any], None]) -> None:
            if isinstance(request, WorkRequest):
                self.loop.create_task(self._work(request, reply))
            else:
                servicer.dispatch(request, reply)

        world.network.listen(address_of(self.name), self.loop, dispatch)
        world.trace(self.name, "serves as %s", self.bqual)

    def _registration(self) -> c.RegisterRequest:
        return c.RegisterRequest(
            resource=self.resource,
            instance=self.instance,
            address=address_of(self.name),
            kind="postgres",
            operations=["change"],
        )

    def _on_registered(self, coordinator_id: str, epoch: int) -> None:
        self.recovery.on_registered(coordinator_id, epoch)

    async def _work(self, request: WorkRequest, reply: Callable[[Any], None]) -> None:
        """The service's own method; what the server interceptor does is done here."""
        transaction = context.from_metadata(request.metadata, now_s=self.clock.monotonic_s())
        assert transaction is not None
        try:
            with context.within(transaction):
                async with self.driver.floor.join(transaction.gtrid, transaction.deadline_monotonic_s) as connection:
                    await connection.execute(UPDATE, (request.amount, request.row))
        except HandfastFault as fault:
            reply(fault)
        except Exception as problem:  # noqa: BLE001 - the client hears of it, as it would over gRPC
            reply(HandfastFault("INTERNAL", gtrid=transaction.gtrid, problem=f"{type(problem).__name__}: {problem}"))
        else:
            reply(WorkDone(context.joined_to_metadata(transaction)))


async def _change(connection: Any, payload: bytes) -> bytes:
    row, _, amount = payload.decode().partition(":")
    await connection.execute(UPDATE, (int(amount), row))
    return payload


class SimulatedManager(TransactionManager):
    """The client's way to the coordinator, over the simulated network."""

    def on_network(self, network: Network, loop: ProcessLoop, trace: Trace | None) -> Self:
        """Open it."""
        self._trace = trace
        channel: Channel = network.open(loop, self._address)
        self._calls = SimulatedStream(channel, on_disconnect=self._blocks.drop)
        return self


def manager_of(process: Process, block_size: int) -> SimulatedManager:
    """A manager for a process."""
    manager = SimulatedManager(
        address_of(COORDINATOR),
        tls=None,
        client=process.name,
        wait="applied",
        outcome_wait=5.0,
        block_size=block_size,
        clock=process.clock,
    )
    return manager.on_network(process.world.network, process.loop, process.trace("client", process.name))
