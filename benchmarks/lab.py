"""The processes of the benchmarks, on the stack that the lab uses: loopback, free ports, all ended on any exit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.work import DATABASE, RESOURCES, SCHEMA
from benchmarks.worker.spec import Load, Spec
from chaos.admin import Admin
from chaos.stack import ManagedProcess, PostgresCluster, Stack, StackError, free_port, python_module, wait_until

ROOT = Path(__file__).resolve().parents[1]
READY_S_MAX = 60.0
PREPARED_MAX = 6000
WORK_CONNECTIONS = 48
FINISH_CONNECTIONS = 16

_COUNT_PREPARED = "SELECT count(*) FROM pg_prepared_xact()"  # without the names of databases and roles

_numbers = itertools.count(1)


class WorkerFailed(StackError):
    """A worker did not measure what it should; its output says why."""


def run_worker(stack: Stack, spec: Spec) -> Load:
    """Run a worker in a process of its own, to its end.

    Raises:
        WorkerFailed: it failed.
        NotInTime: it did not end.
    """
    name = f"worker-{next(_numbers)}-{spec.kind}"
    worker = ManagedProcess(
        name, python_module("benchmarks.worker", spec.to_json()), log=stack.path / f"{name}.log", cwd=ROOT
    )
    stack.start(worker)
    code = worker.wait(spec.warm_up_s + min(spec.seconds, 600.0) + 120.0)
    if code != 0:
        raise WorkerFailed(worker.report(f"ended with {code}"))
    return Load.from_json(worker.output().splitlines()[-1])


class Coordinator:
    """One coordinator process with a log of its own.

    Args:
        stack: ends it.
        name: names its process and its folder.
        flags: settings, as they stand on the command line.
    """

    def __init__(self, stack: Stack, name: str, flags: Sequence[str] = ()) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.admin = Admin(self.address)
        self.log = stack.folder(name) / "handfast.db"
        settings = ["--address", self.address, "--log", str(self.log), *flags]
        self.process = ManagedProcess(
            name,
            python_module("coordinator", "serve", *settings),
            log=stack.folder(name) / "coordinator.log",
            cwd=ROOT,
            # What is installed has its bytecode. Where this is set to 1, as in some containers, each start would make
            # it anew.
            env={"PYTHONDONTWRITEBYTECODE": ""},
            ready="handfast is ready",
            ready_timeout_s=READY_S_MAX,
        )
        stack.add(self.process)

    def start(self) -> Coordinator:
        """Start it, and wait until it is ready."""
        self.process.start()
        return self

    def wait_reached(self, addresses: set[str]) -> None:
        """Wait until it is connected to the participants at these addresses."""

        def reached() -> bool:
            return addresses <= {one.address for one in self.admin.participants() if one.reachable}

        wait_until(reached, READY_S_MAX, "the coordinator does not reach every participant")


@dataclass(frozen=True, slots=True)
class Postgres:
    """Both databases.

    Args:
        clusters: a server for each, by resource.
    """

    clusters: Mapping[str, PostgresCluster]

    @classmethod
    def started(cls, stack: Stack) -> Postgres:
        """Start them, with the table that all work changes."""
        clusters = {
            resource: PostgresCluster(resource, stack.path, max_prepared_transactions=PREPARED_MAX, max_connections=300)
            for resource in RESOURCES
        }
        at_once([partial(_start_database, stack, one) for one in clusters.values()])
        return cls(clusters)

    @property
    def dsns(self) -> tuple[str, ...]:
        """Where they are, in the order of the resources."""
        return tuple(one.dsn(DATABASE) for one in self.clusters.values())

    @property
    def pids(self) -> dict[str, int]:
        """Their servers' process ids, by name."""
        return {f"postgres-{resource}": one.process.pid for resource, one in self.clusters.items()}

    @property
    def version(self) -> str:
        """The servers' version."""
        return str(next(iter(self.clusters.values())).fetch("SHOW server_version")[0][0])

    @contextmanager
    def counting_prepared(self) -> Iterator[Callable[[], int]]:
        """Give a function that counts what is prepared in both, on connections that stay open: to make some each time
        would take from the time that is measured."""
        with ExitStack() as opened:
            connections = [opened.enter_context(one.connect()) for one in self.clusters.values()]
            yield lambda: sum(one.execute(_COUNT_PREPARED).fetchall()[0][0] for one in connections)


class Services:
    """A coordinator and a service over each database.

    Args:
        stack: ends them.
        postgres: the databases.
        finish_connections: each service's connections for phase two.
    """

    def __init__(self, stack: Stack, postgres: Postgres, finish_connections: int = FINISH_CONNECTIONS) -> None:
        self.postgres = postgres
        self.coordinator = Coordinator(stack, "coordinator")
        ports = {resource: free_port() for resource in RESOURCES}
        self.addresses = tuple(f"127.0.0.1:{port}" for port in ports.values())
        self.processes = {
            resource: ManagedProcess(
                f"service-{resource}",
                python_module(
                    "benchmarks.servers.service",
                    *(resource, dsn, str(port), self.coordinator.address),
                    *(str(WORK_CONNECTIONS), str(finish_connections)),
                ),
                log=stack.path / f"service-{resource}.log",
                cwd=ROOT,
                ready=f"{resource} is ready",
                ready_timeout_s=READY_S_MAX,
            )
            for (resource, port), dsn in zip(ports.items(), postgres.dsns, strict=True)
        }
        at_once([self.coordinator.start, *(partial(stack.start, one) for one in self.processes.values())])
        self.wait_reached()

    def wait_reached(self) -> None:
        """Wait until the coordinator reaches both services."""
        self.coordinator.wait_reached(set(self.addresses))

    @property
    def pids(self) -> dict[str, int]:
        """The processes whose CPU time is of interest, by name."""
        services = {resource: one.pid for resource, one in self.processes.items()}
        return {"coordinator": self.coordinator.process.pid, **services, **self.postgres.pids}

    def spec(self, kind: str, **rest: object) -> Spec:
        """A worker's task on these processes."""
        return Spec(
            **{  # type: ignore[arg-type]  # the keywords are Spec's own
                "kind": kind,
                "coordinator": self.coordinator.address,
                "addresses": self.addresses,
                "dsns": self.postgres.dsns,
                "resources": RESOURCES,
                "watch": self.pids,
                "log": str(self.coordinator.log),
                **rest,
            }
        )


class NoopServices:
    """A coordinator, and two processes that serve participants which do nothing.

    Args:
        stack: ends them.
        name: distinguishes these processes from others.
        resources: how many participants; each has an address, and so a stream, of its own.
        unary: without batched streams.
    """

    def __init__(self, stack: Stack, name: str, resources: int = 2, *, unary: bool = False) -> None:
        ports = [free_port() for _ in range(resources)]
        self.resources = tuple(f"noop{number}" for number in range(resources))
        flags = [
            part
            for resource, port in zip(self.resources, ports, strict=True)
            for part in ("--participant", f"{resource}=127.0.0.1:{port}")
        ]
        self.coordinator = Coordinator(stack, f"coordinator-{name}", flags)
        self.processes = {
            f"participant-{number}": self._noop(stack, f"{name}-noop-{number}", ports[number::2], unary=unary)
            for number in range(2)
        }
        at_once([self.coordinator.start, *(partial(stack.start, one) for one in self.processes.values())])
        self.coordinator.wait_reached({f"127.0.0.1:{port}" for port in ports})

    @staticmethod
    def _noop(stack: Stack, name: str, ports: Sequence[int], *, unary: bool) -> ManagedProcess:
        arguments = [str(port) for port in ports] + (["--unary"] if unary else [])
        return ManagedProcess(
            name,
            python_module("benchmarks.servers.noop", *arguments),
            log=stack.path / f"{name}.log",
            cwd=ROOT,
            ready="no-op is ready",
            ready_timeout_s=READY_S_MAX,
        )

    @property
    def pids(self) -> dict[str, int]:
        """The processes whose CPU time is of interest, by name."""
        return {
            "coordinator": self.coordinator.process.pid,
            **{name: one.pid for name, one in self.processes.items()},
        }

    def spec(self, kind: str, branches: int = 2, **rest: object) -> Spec:
        """A worker's task on these processes."""
        return Spec(
            **{  # type: ignore[arg-type]  # the keywords are Spec's own
                "kind": kind,
                "coordinator": self.coordinator.address,
                "resources": self.resources[:branches],
                "watch": self.pids,
                **rest,
            }
        )

    def close(self) -> None:
        """End these processes before the stack does; what they hold is of no use to anybody."""
        for process in (self.coordinator.process, *self.processes.values()):
            process.kill()


class EmptyServer:
    """A grpc.aio server of empty calls.

    Args:
        stack: ends it.
    """

    def __init__(self, stack: Stack) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.process = ManagedProcess(
            "empty-server",
            python_module("benchmarks.servers.empty", str(port)),
            log=stack.path / "empty-server.log",
            cwd=ROOT,
            ready="empty is ready",
            ready_timeout_s=READY_S_MAX,
        )
        stack.start(self.process)

    def spec(self, **rest: object) -> Spec:
        """A worker's task on it."""
        watch = {"server": self.process.pid}
        return Spec(**{"kind": "empty", "address": self.address, "watch": watch, **rest})  # type: ignore[arg-type]  # Spec's own keywords


def _start_database(stack: Stack, cluster: PostgresCluster) -> None:
    stack.start(cluster).create_database(DATABASE)
    with cluster.connect(DATABASE) as connection:
        connection.execute(SCHEMA)
        connection.execute("VACUUM ANALYZE account")


def at_once(starts: Sequence[Callable[[], object]]) -> None:
    """Start several things side by side. When one fails, raise its error after all others have come to an end."""
    with ThreadPoolExecutor(thread_name_prefix="bench-start") as pool:
        for started in [pool.submit(start) for start in starts]:
            started.result()
