"""BankStack: the whole product around the example bank, as real processes that can be hurt one by one.

    client ──→ coordinator ──→ accounts ──→ Postgres "accounts"     (a cluster of its own)
           ╰──────────────────→ ledger  ──→ Postgres "ledger"       (another)
                coordinator ←── each service

Each arrow is a ``Link``. Whoever wants something between its two ends, as a proxy that can fail, gives ``route``: it is
told of each link before the link is used for the first time, and answers with the one to use instead. A link between
two of our processes has two addresses, for gRPC and for frames; what is put before the one belongs before the other.

What a test asks of the databases (``money``, ``prepared``, ``journal``) is asked by plain SQL, past the product.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import grpc

from chaos.admin import Admin
from chaos.stack import ManagedProcess, PostgresCluster, Stack, free_port, python_module, release_port, wait_until

SERVICES = ("accounts", "ledger")
FAILPOINT = "HANDFAST_FAILPOINT"
DATABASE = "bank"

_ROOT = Path(__file__).resolve().parents[1]
_READY_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Link:
    """One way from a process to another.

    Args:
        source: who connects: ``client``, ``coordinator``, or a service process such as ``ledger-1``.
        target: what it connects to: ``coordinator``, a service process, or ``postgres-accounts``, ``postgres-ledger``.
        address: where the target listens, ``host:port``.
        frames: where it listens for frame connections, ``host:port``; empty for a database.
    """

    source: str
    target: str
    address: str
    frames: str


Route = Callable[[Link], Link]
"""Answers with the link that its source shall use: the same ends, at other addresses."""


def direct(link: Link) -> Link:
    """Nothing between the two ends."""
    return link


@dataclass(frozen=True, slots=True, kw_only=True)
class BankPlan:
    """What to build.

    Args:
        accounts: how many accounts each database holds, numbered from 1.
        balance: what each of them holds, in cents.
        instances: how many processes of each service, all over the one database; 1 for those not named.
        coordinator_flags: settings of the coordinator, as ``{"retry_cap_s": 1}``.
        coordinator_env: variables of the coordinator's environment.
        service_flags: settings of every service process, as ``{"memory_age_s": 60}``.
        service_env: variables of a service process's environment, by process, as ``{"ledger-1": {…}}``.
        postgres_settings: settings of both servers.
        max_prepared_transactions: slots for prepared transactions in each server.
        fsync: whether the servers wait for the disk.
    """

    accounts: int = 100
    balance: int = 1000
    instances: Mapping[str, int] = field(default_factory=dict)
    coordinator_flags: Mapping[str, object] = field(default_factory=dict)
    coordinator_env: Mapping[str, str] = field(default_factory=dict)
    service_flags: Mapping[str, object] = field(default_factory=dict)
    service_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    postgres_settings: Mapping[str, str | int] = field(default_factory=dict)
    max_prepared_transactions: int = 256
    fsync: bool = True


@dataclass(frozen=True, slots=True)
class PreparedBranch:
    """A prepared transaction, as its database shows it.

    Args:
        database: ``accounts`` or ``ledger``.
        gid: its name there.
        seconds: for how long it has been prepared.
        accounts: the accounts whose rows it has changed and holds locked.
    """

    database: str
    gid: str
    seconds: float
    accounts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One side of a transfer.

    Args:
        database: ``accounts`` or ``ledger``.
        line: its number there; grows in the order of commits for one account.
        transfer: the transfer.
        account: whose balance it changed.
        cents: by how much.
    """

    database: str
    line: int
    transfer: str
    account: int
    cents: int


class BankStack:
    """Two Postgres servers, one coordinator, and the bank's services. Its methods block.

    Args:
        stack: what closes it all. Every part is registered there.
        plan: what to build.
        route: puts something between the two ends of a link.
    """

    name = "bank"

    def __init__(self, stack: Stack, plan: BankPlan | None = None, *, route: Route = direct) -> None:
        self.plan = plan or BankPlan()
        self.folder = stack.folder("bank")
        self.log = self.folder / "handfast.db"
        self._stack = stack
        self._route = route
        self._links: dict[tuple[str, str], Link] = {}
        self._ports: dict[str, int] = {}
        self._lock = threading.RLock()
        self.admin = Admin(self.listening("coordinator"))
        self.databases = {service: self._database(service) for service in SERVICES}
        self.coordinator = self._coordinator()
        self.instances = {
            f"{service}-{number}": service
            for service in SERVICES
            for number in range(1, self.plan.instances.get(service, 1) + 1)
        }
        self.services: dict[str, ManagedProcess] = {}

    # Starting and stopping

    def start(self) -> Self:
        """Start everything, and wait until the coordinator reaches every service.

        Raises:
            StackError: a part did not start; the message carries the last lines of its log.
        """
        self.coordinator.argv += _flags(self._frame_settings("coordinator", ("client", *self.instances)))
        _at_once([self._start_coordinator, *(partial(self._start_side, service) for service in SERVICES)])
        self.wait_reachable()
        return self

    def close(self) -> None:
        """Give the ports back. The parts are closed by the stack."""
        for port in self._ports.values():
            release_port(port)

    def start_coordinator(self, *, failpoint: str = "", wait: bool = True) -> None:
        """Start the coordinator again, on the same port and log.

        Args:
            failpoint: where it shall crash, as ``after-force`` or ``before-force@3``; empty for nowhere.
            wait: return only when it is ready.

        Raises:
            StartFailed: it did not start.
        """
        self.coordinator.env[FAILPOINT] = failpoint
        self.coordinator.start(wait=wait)

    def service(self, name: str) -> ManagedProcess:
        """A service process: ``ledger-1``, or ``ledger`` for the first."""
        return self.services[name if name in self.services else f"{name}-1"]

    # Addresses

    def listening(self, target: str) -> str:
        """Where the coordinator or a service process listens, ``host:port``; nothing is between."""
        return f"127.0.0.1:{self._port(target)}"

    def listening_for_frames(self, target: str) -> str:
        """Where it listens for frame connections, ``host:port``; nothing is between."""
        return f"127.0.0.1:{self._port(f'{target} frames')}"

    def address(self, target: str, *, source: str = "client") -> str:
        """What ``source`` uses to reach ``target``."""
        return self._link(source, target).address

    def client_addresses(self) -> dict[str, str]:
        """What a client needs: an address for ``coordinator``, ``accounts`` and ``ledger`` (their first processes)."""
        services = {service: self.address(f"{service}-1") for service in SERVICES}
        return {"coordinator": self.address("coordinator"), **services}

    # The truth, by SQL

    def money(self) -> dict[str, int]:
        """What each database holds in all, in cents. What is prepared and not committed does not count yet."""
        return {service: self._fetch(service, "SELECT sum(balance)::bigint FROM account")[0][0] for service in SERVICES}

    def prepared(self, services: Iterable[str] = SERVICES) -> list[PreparedBranch]:
        """The prepared transactions, oldest first."""
        # A row's xmax names the transaction that last changed or locked it: that is how a reader finds the culprit.
        query = """
            SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float,
                   ARRAY(SELECT id FROM account WHERE account.xmax = transaction)
            FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared
        """
        return [
            PreparedBranch(service, gid, seconds, tuple(accounts))
            for service in services
            for gid, seconds, accounts in self._fetch(service, query)
        ]

    def statements(self, service: str) -> int:
        """How many statements run in a database, those that wait for a lock not counted."""
        query = """
            SELECT count(*)::int FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
                AND state = 'active' AND wait_event_type IS DISTINCT FROM 'Lock'
        """
        count: int = self._fetch(service, query)[0][0]
        return count

    def journal(self) -> list[JournalLine]:
        """Every line of both journals, in order for each database."""
        query = "SELECT line, transfer, account, amount FROM journal ORDER BY line"
        return [JournalLine(service, *row) for service in SERVICES for row in self._fetch(service, query)]

    def half_transfers(self) -> dict[str, int]:
        """The transfers whose sides do not add up to nothing, with the difference in cents. None, when all is well."""
        sums: dict[str, int] = {}
        for line in self.journal():
            sums[line.transfer] = sums.get(line.transfer, 0) + line.cents
        return {transfer: cents for transfer, cents in sums.items() if cents}

    # Waiting

    def wait_reachable(self, timeout_s: float = _READY_S_MAX) -> None:
        """Wait until the coordinator reaches every service process that runs, and each of them the coordinator.

        Raises:
            NotInTime: it does not.
        """
        wait_until(self.all_reachable, timeout_s, lambda: f"services not reached: {self._participants_or_error()}")

    def all_reachable(self) -> bool:
        """Whether the coordinator reaches every service process that runs, and each of them the coordinator."""
        wanted = {self.address(name, source="coordinator") for name, one in self.services.items() if one.alive}
        try:
            # Who has registered in this life of the coordinator has found the way to it.
            began_unix_ms = time.time() * 1000 - self.admin.status().uptime_ms
            known = [one for one in self.admin.participants() if one.registered_unix_ms >= began_unix_ms]
        except grpc.RpcError:
            return False
        return wanted <= {one.address for one in known if one.reachable}

    def wait_nothing_prepared(self, timeout_s: float = 30.0, services: Iterable[str] = SERVICES) -> None:
        """Wait until no branch is prepared any more.

        Raises:
            NotInTime: some still are.
        """
        wait_until(lambda: not self.prepared(services), timeout_s, lambda: f"still prepared: {self.prepared(services)}")

    # Inside

    def _database(self, service: str) -> PostgresCluster:
        return PostgresCluster(
            service,
            self._stack.path,
            max_prepared_transactions=self.plan.max_prepared_transactions,
            fsync=self.plan.fsync,
            settings=self.plan.postgres_settings,
        )

    def _start_coordinator(self) -> None:
        self._stack.start(self.coordinator)

    def _start_side(self, service: str) -> None:
        """A database, then the processes of its service."""
        self._stack.start(self.databases[service]).create_database(DATABASE)
        mine = [self._service(instance, service) for instance, whose in self.instances.items() if whose == service]
        self.services |= {one.name: one for one in mine}
        _at_once([partial(self._stack.start, one) for one in mine])

    def _coordinator(self) -> ManagedProcess:
        settings = {"address": self.listening("coordinator"), "log": self.log, **self.plan.coordinator_flags}
        return ManagedProcess(
            "coordinator",
            python_module("coordinator", "serve", *_flags(settings)),
            log=self.folder / "coordinator.log",
            env={FAILPOINT: "", **self.plan.coordinator_env},
            cwd=_ROOT,
            ready=self.admin.answers,
            ready_timeout_s=_READY_S_MAX,
        )

    def _service(self, instance: str, service: str) -> ManagedProcess:
        settings = {
            "dsn": self._dsn(instance, service),
            "port": self._port(instance),
            "address": self.address(instance, source="coordinator"),
            **self._frame_settings(instance, ("client", "coordinator")),
            "coordinator": self.address("coordinator", source=instance),
            "accounts": self.plan.accounts,
            "balance": self.plan.balance,
            **self.plan.service_flags,
        }
        return ManagedProcess(
            instance,
            python_module("examples.bank", service, *_flags(settings)),
            log=self.folder / f"{instance}.log",
            env=self.plan.service_env.get(instance),
            cwd=_ROOT,
            ready=f"{service} is ready",
            ready_timeout_s=_READY_S_MAX,
        )

    def _frame_settings(self, target: str, sources: Iterable[str]) -> dict[str, object]:
        """Where a process listens for frames, and for each source with something between, where it finds that."""
        listening = self.listening_for_frames(target)
        links = [self._link(source, target) for source in sources]
        via = tuple(f"{link.address}={link.frames}" for link in links if link.frames != listening)
        return {"frame_address": listening, "frame_via": via}

    def _dsn(self, instance: str, service: str) -> str:
        port = self.address(f"postgres-{service}", source=instance).rpartition(":")[2]
        return self.databases[service].dsn(DATABASE, port=int(port))

    def _port(self, target: str) -> int:
        with self._lock:
            if target not in self._ports:
                self._ports[target] = free_port()
            return self._ports[target]

    def _link(self, source: str, target: str) -> Link:
        with self._lock:
            if (source, target) not in self._links:
                self._links[source, target] = self._route(self._unrouted(source, target))
            return self._links[source, target]

    def _unrouted(self, source: str, target: str) -> Link:
        if target.startswith("postgres-"):
            port = self.databases[target.removeprefix("postgres-")].port
            return Link(source, target, f"127.0.0.1:{port}", frames="")
        return Link(source, target, self.listening(target), frames=self.listening_for_frames(target))

    def _fetch(self, service: str, query: str) -> list[tuple[Any, ...]]:
        return self.databases[service].fetch(query, database=DATABASE)

    def _participants_or_error(self) -> str:
        try:
            return "; ".join(f"{one.address} {one.last_error}" for one in self.admin.participants())
        except grpc.RpcError as error:
            return str(error)


def _flags(settings: Mapping[str, object]) -> list[str]:
    """Settings as a command line has them; of one with several values, each."""
    flags: list[str] = []
    for name, value in settings.items():
        for one in value if isinstance(value, tuple) else (value,):
            flags += [f"--{name.replace('_', '-')}", str(one)]
    return flags


def _at_once(starts: Iterable[Callable[[], object]]) -> None:
    """Start several things side by side. When one fails, raise its error after all others have come to an end."""
    with ThreadPoolExecutor(thread_name_prefix="bank-start") as pool:
        for started in [pool.submit(start) for start in starts]:
            started.result()
