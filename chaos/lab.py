"""Lab: one stack with proxies on every link, clients, bystanders, and a record of all that happens.

What a scenario's ``act`` gets. Everything that blocks runs on a thread, so the clients' event loop goes on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg

from chaos.bank_stack import DATABASE, SERVICES, BankStack, Link
from chaos.events import CLIENT, EventLog, FaultSpan, Listener
from chaos.faults import Fault, Restart, healing_order
from chaos.history import Call, History, Status
from chaos.late import late
from chaos.lone_client import CENTS
from chaos.observers import BLOCKED_S_MIN, InDoubt, PreparedWatch, RowProbe, TotalWatch
from chaos.scenario import AS_ROWS, Scenario
from chaos.small_disk import on_small_disk
from chaos.stack import (
    ManagedProcess,
    NotInTime,
    PostgresCluster,
    Stack,
    free_port,
    python_module,
    release_port,
    wait_until,
)
from chaos.toxiproxy import Proxy, ToxiproxyServer, Wire
from chaos.workload import TIMEOUT_S_DEFAULT, Draws, Kind, Teller, Transfer, run_load
from participant.failpoints import ENVIRONMENT_VARIABLE as SERVICE_FAILPOINT

REPOSITORY = Path(__file__).resolve().parents[1]
_CONNECT_S_MAX = 2
_TOLD = {Status.OK: "committed", Status.FAIL: "did not happen", Status.INFO: "no certain outcome"}
Answer = TypeVar("Answer")


class Lab:
    """A running stack and everything around it; ``async with`` starts and ends it.

    Args:
        scenario: says what to build and what to watch.
        stack: closes everything.
        seed: of the load.
        minutes: how long the scenario `everything` lasts.
        listener: is told of each event as it happens.
        toxiproxy: the server program.
    """

    def __init__(
        self,
        scenario: Scenario,
        stack: Stack,
        *,
        seed: int,
        minutes: float = 1.0,
        listener: Listener = lambda event: None,
        toxiproxy: Path | None = None,
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.minutes = minutes
        self.random = random.Random(seed)
        self.events = EventLog(listener)
        self.history = History(self.events.now_s)
        self.facts: dict[str, float] = {}
        self._rows_by_epoch: dict[int, int] = {}
        self.stack = stack
        self.trace: Path | None = None
        self.wires: dict[tuple[str, str], Wire] = {}
        self.server = ToxiproxyServer(stack.path, program=toxiproxy)
        self.bank = BankStack(stack, scenario.plan, route=self._route)
        self.probes: list[RowProbe] = []
        self.watches: list[PreparedWatch] = []
        self.total_watch: TotalWatch | None = None
        self.clients: dict[str, ManagedProcess] = {}
        self._faults: list[tuple[Fault, int]] = []
        self._ports: list[int] = []
        self._tasks: list[asyncio.Task[Call]] = []
        self._open = AsyncExitStack()

    # -- starting and ending ---------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._start)
        self.teller = await self._open.enter_async_context(self.new_teller("lab"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._open.aclose()
        await asyncio.to_thread(self._end_quickly)
        for port in self._ports:
            release_port(port)

    def _start(self) -> None:
        self.stack.start(self.server)
        if self.scenario.log_kilobytes:
            coordinator = self.bank.coordinator
            coordinator.argv = on_small_disk(coordinator.argv, self.log.parent, self.scenario.log_kilobytes)
        self.stack.start(self.bank)
        self.events.begin()
        for database in SERVICES:
            connect = self._connector(database)
            self.watches.append(PreparedWatch(database, connect, self.events.now_s, self.events.of_unix))
        for database, row in self.scenario.rows:
            self.probes.append(RowProbe(database, row, self._connector(database), self.events.now_s))
        if self.scenario.watch_total:
            total = self.scenario.plan.accounts * self.scenario.plan.balance * len(SERVICES)
            connects = [self._connector(database) for database in SERVICES]
            self.total_watch = TotalWatch(connects, total, self.events.now_s)
        for observer in self._observers():
            observer.start()
        wait_until(lambda: all(probe.writes for probe in self.probes), 10, "a probe could not write its row")

    def _end_quickly(self) -> None:
        """Nobody needs an orderly end any more, and there are many stacks to run."""
        self.stop_watching()
        for process in (*self.bank.services.values(), self.bank.coordinator):
            process.kill()

    def stop_watching(self) -> None:
        """End the bystanders, and close their books. A second call does nothing."""
        for observer in self._observers():
            observer.stop()

    def _observers(self) -> list[RowProbe | PreparedWatch | TotalWatch]:
        total = [self.total_watch] if self.total_watch else []
        return [*self.watches, *self.probes, *total]

    # -- faults ----------------------------------------------------------------------------------------------------

    async def inject(self, fault: Fault) -> int:
        """Let a fault act, and record since when. Returns its number, for ``heal``."""
        asked_s = self.events.now_s()
        await asyncio.to_thread(fault.start, self)
        # An orderly stop is felt from the moment it is asked for; whatever else can't be felt before it is done.
        now_s = asked_s if isinstance(fault, Restart) else self.events.now_s()
        number = self.events.begin_fault(fault.label, fault.words, tuple(map(self.lane, fault.lanes)), now_s)
        self._faults.append((fault, number))
        self.events.note(self.lane(fault.lanes[0]), fault.label, fault.words)
        return number

    async def heal(self, fault: Fault) -> FaultSpan:
        """Undo a fault, and record until when it acted: for a process, until it is ready again."""
        number = next(number for one, number in reversed(self._faults) if one is fault)
        self._faults.remove((fault, number))
        await asyncio.to_thread(fault.heal, self)
        span = self.events.end_fault(number)
        self.events.note(self.lane(fault.lanes[0]), f"{fault.label}: healed after {span.seconds:.1f} s")
        return span

    @asynccontextmanager
    async def under(self, fault: Fault) -> AsyncIterator[None]:
        """Let a fault act for the time of a block."""
        await self.inject(fault)
        try:
            yield
        finally:
            await self.heal(fault)

    async def heal_all(self) -> None:
        """Undo what is not undone yet (see ``healing_order``)."""
        for fault in healing_order([fault for fault, _ in self._faults]):
            await self.heal(fault)

    def lane(self, name: str) -> str:
        """The lane of a process, in the picture and in the progress."""
        return CLIENT if name in self.clients else lane_of(name)

    # -- clients ---------------------------------------------------------------------------------------------------

    def new_teller(self, name: str, *, outcome_wait_s: float = 5.0) -> Teller:
        """Another client, behind the same proxies; use it as ``async with``."""
        return Teller(self.bank.client_addresses(), self.history, name=name, outcome_wait_s=outcome_wait_s)

    async def pay(
        self,
        *,
        customer: int = 1,
        merchant: int = 1,
        cents: int = 100,
        kind: Kind = "pay",
        timeout_s: float = TIMEOUT_S_DEFAULT,
        between_s: float = 0.0,
        hold_s: float = 0.0,
        teller: Teller | None = None,
    ) -> Call:
        """Make one transfer; see ``Teller.make``. Returns what the client knows of it."""
        transfer = Transfer(kind, customer, merchant, cents)
        call = await (teller or self.teller).make(transfer, timeout_s=timeout_s, between_s=between_s, hold_s=hold_s)
        self.events.note(CLIENT, f"{call.transfer}: {_TOLD[call.status]}", call.error)
        return call

    def begin_pay(self, **arguments: Any) -> asyncio.Task[Call]:
        """The same, in the background."""
        task = asyncio.get_running_loop().create_task(self.pay(**arguments))
        self._tasks.append(task)
        return task

    async def lone_client(self, name: str, account: int, *, commit: bool, timeout_s: float) -> int:
        """Start a client in a process of its own, for ``Kill(name)``; return once it has paid on both sides.

        Args:
            name: of the process, and of its transfer.
            account: the account on both sides.
            commit: whether it asks for the commit; otherwise it thinks for ever.
            timeout_s: of its transaction.

        Returns:
            The number of its call in the history.
        """
        addresses = self.bank.client_addresses()
        places = [addresses[name] for name in ("coordinator", "accounts", "ledger")]
        flags = ["--timeout", str(timeout_s), *(["--commit"] if commit else [])]
        argv = python_module("chaos.lone_client", *places, name, str(account), *flags)
        client = ManagedProcess(name, argv, log=self.stack.path / f"{name}.log", cwd=REPOSITORY, ready="gtrid ")
        self.clients[name] = client
        number = self.history.begin("pay", name, account, account, CENTS)
        await asyncio.to_thread(self.stack.start, client)
        self.history.name(number, client.output().partition("gtrid ")[2].split()[0])
        return number

    async def load(
        self,
        *,
        seconds: float,
        concurrency: int = 4,
        accounts: int | None = None,
        timeout_s: float = TIMEOUT_S_DEFAULT,
        draws: Draws | None = None,
        bursts: bool = True,
    ) -> None:
        """Make seeded transfers for a while; see ``run_load``."""
        draws = draws or Draws(self.seed, accounts=accounts or self.scenario.plan.accounts)
        await run_load(self.teller, draws, seconds=seconds, concurrency=concurrency, timeout_s=timeout_s, bursts=bursts)

    async def count_rows(self) -> None:
        """Note how many transactions began as rows of a cohort; a coordinator counts those of its own life.

        Raises:
            grpc.RpcError: the coordinator does not answer.
        """
        status = await self.blocking(self.bank.admin.status)
        self._rows_by_epoch[status.epoch] = status.counters["begun_together"]
        self.facts[AS_ROWS] = sum(self._rows_by_epoch.values())

    async def finish_calls(self) -> None:
        """Wait until every client in the background has its answer."""
        await asyncio.gather(*self._tasks)

    # -- looking and waiting ---------------------------------------------------------------------------------------

    def say(self, lane: str, what: str, why: str = "") -> None:
        """Tell the watcher, and the log, what happens and why it matters."""
        self.events.note(lane, what, why)

    async def until(self, condition: Callable[[], Answer], within_s: float, what: str) -> Answer:
        """Wait until a condition holds.

        Raises:
            NotInTime: it does not in time.
        """
        return await asyncio.to_thread(wait_until, condition, within_s, what)

    async def comes_true(self, condition: Callable[[], Answer], within_s: float) -> bool:
        """Wait until a condition holds, for a while. Returns whether it did; the judges will say what that means."""
        try:
            await self.until(condition, within_s, "it did not come true")
        except NotInTime:
            return False
        return True

    async def blocking(self, call: Callable[[], Answer]) -> Answer:
        """Run something that blocks, on a thread."""
        return await asyncio.to_thread(call)

    async def rest(self, seconds: float) -> None:
        """Let time pass: the length of an outage is the experiment's to choose."""
        await asyncio.sleep(seconds)

    def in_doubt(self) -> list[InDoubt]:
        """The branches that are prepared now, as the watches last saw them."""
        return [one for watch in self.watches for one in watch.open]

    async def until_in_doubt(self, branches: int, within_s: float = 10.0) -> None:
        """Wait until exactly so many branches are prepared."""
        await self.until(
            lambda: len(self.in_doubt()) == branches, within_s, f"not {branches} branches in doubt: {self.in_doubt()}"
        )

    async def until_blocked(self, within_s: float = 5.0) -> None:
        """Wait until every probe waits for its row: somebody holds them all."""
        await self.until(
            lambda: all(probe.waiting_s > BLOCKED_S_MIN for probe in self.probes), within_s, "the rows are free"
        )

    def background(self, coroutine: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
        """Run something beside the scenario."""
        return asyncio.get_running_loop().create_task(coroutine)

    # -- Reach -----------------------------------------------------------------------------------------------------

    def wire(self, source: str, target: str) -> Wire:
        """The proxies on a link, by names such as ``coordinator`` and ``ledger``."""
        found = self.wires.get((lane_of(source), lane_of(target)))
        if found is None:
            links = ", ".join(f"{one} → {other}" for one, other in sorted(self.wires))
            raise LookupError(f"no proxy on {source} → {target}; there are: {links}")
        return found

    def process(self, name: str) -> ManagedProcess:
        """A process by name."""
        if name in self.clients:
            return self.clients[name]
        return self.bank.coordinator if name == "coordinator" else self.bank.service(name)

    def postgres(self, name: str) -> PostgresCluster:
        """A database server by name."""
        return self.bank.databases[name.removeprefix("postgres-")]

    @property
    def log(self) -> Path:
        """The decision log."""
        return self.bank.log

    def start_process(self, name: str) -> None:
        """Start a process again, without a failpoint. A client that vanished stays away."""
        if name in self.clients:
            return
        if name == "coordinator":
            self.bank.start_coordinator()
        else:
            service = self.bank.service(name)
            service.env[SERVICE_FAILPOINT] = ""
            service.start()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _route(self, link: Link) -> Link:
        source, target = lane_of(link.source), lane_of(link.target)
        if (source, target) in self.scenario.late_links:
            link = self._wired(link, source, late(target))
        return self._wired(link, source, target)

    def _wired(self, link: Link, source: str, target: str) -> Link:
        """Put a wire in front of a link. Returns the link that leads into it."""
        name = f"{source}-to-{target}".replace(", ", "-")
        calls = self._proxy(name, link.address)
        frames = self._proxy(f"{name}-frames", link.frames) if link.frames else None
        self.wires[source, target] = Wire(calls, frames)
        return replace(link, address=calls.listen, frames=frames.listen if frames else "")

    def _proxy(self, name: str, upstream: str) -> Proxy:
        port = free_port()
        self._ports.append(port)
        return self.server.api.create(upstream, name, listen=f"127.0.0.1:{port}")

    def _connector(self, database: str) -> Callable[[], psycopg.Connection[tuple[Any, ...]]]:
        cluster = self.bank.databases[database]
        return lambda: psycopg.connect(cluster.dsn(DATABASE), autocommit=True, connect_timeout=_CONNECT_S_MAX)


def lane_of(name: str) -> str:
    """The lane of a process: ``accounts-1`` is in the lane ``accounts``."""
    return name.removesuffix("-1")
