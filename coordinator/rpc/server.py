"""The coordinator, assembled: opened, recovered, served, and stopped in good order.

Order is what this module is about. At start the log comes first (it says who we are, and refuses a second process),
then recovery takes up what is decided, and only then is anything served: a request that came earlier would find no
trace of a commit that the log holds. At stop it is the other way round: new work is refused, what is active is rolled
back, and so, a moment later, is what still has no decision; what is decided is finished while participants can be
reached, answers are written, and the log closes last.

A stop that is cut short, by a second signal, by SIGKILL or by a broken log, loses nothing: whatever was not finished is
what recovery finds. So the graceful stop is a courtesy to those who wait, never a condition of being right.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from coordinator.config import CoordinatorConfig
from coordinator.log.records import ParticipantRecord
from coordinator.log.sqlite import SqliteLog
from coordinator.log.store import LogBroken, LogRefused, LogStore
from coordinator.protocol import events as e
from coordinator.protocol.states import Cause, TransactionState
from coordinator.rpc.admin_service import AdminService
from coordinator.rpc.coordinator_service import CoordinatorService
from coordinator.rpc.guarded import dispatch_for
from coordinator.rpc.limits import StreamLimits, Streams
from coordinator.rpc.listening import frame_port, listen, make_access, participant_tls, warn_of_plain_text
from coordinator.rpc.trail import Trail
from coordinator.runtime.clock import Clock, SystemClock
from coordinator.runtime.cohorts import Cohorts
from coordinator.runtime.directory import STATIC_INSTANCE, Directory
from coordinator.runtime.driver import Driver
from coordinator.runtime.entropy import Entropy, SystemEntropy
from coordinator.runtime.failpoints import Failpoints
from coordinator.runtime.gtrids import Gtrids
from coordinator.runtime.in_doubt import InDoubtReport
from coordinator.runtime.links import Links
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.recovery import Recovery
from coordinator.runtime.requests import Requests
from coordinator.runtime.resolution import Resolution
from coordinator.runtime.row_requests import RowRequests
from coordinator.runtime.running import Running
from coordinator.runtime.trace import ProtocolTrace
from handfast import collector
from handfast.frames import FramePort, careful, server_options, together
from handfast.frames.channels import Options
from handfast.trace import Owner, Sink, Trace, TraceFile
from handfast.v1 import admin_pb2, admin_pb2_grpc, coordinator_pb2, coordinator_pb2_grpc

logger = logging.getLogger(__name__)

EXIT_LOG_BROKEN = 70
"""EX_SOFTWARE of sysexits.h: the log can't be trusted any more."""

ANSWER_GRACE_S = 1.0
"""How long answers that are ready may take to be written at a stop, in seconds."""

VOTES_WAIT_S = 1.0
"""How long a stop waits for missing votes, in seconds. One that takes longer waits for a lock most likely, perhaps in a
deadlock across databases, which its transaction's end resolves."""

HANDSHAKE_TIMEOUT_MS = 10_000
"""How long a connection may take to become one: to finish its TLS handshake and to speak HTTP/2."""

CLEANUPS_PER_RETENTION = 24
CLEANUP_INTERVAL_S_MAX = 3600.0
SWEEPS_BEFORE_CLEANUP = 3

SERVICES = (
    coordinator_pb2.DESCRIPTOR.services_by_name["Coordinator"].full_name,
    admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name,
)

OnBroken = Callable[[LogBroken], None]
MakeLog = Callable[[OnBroken], LogStore]


class CoordinatorServer:
    """One coordinator in this process.

    Args:
        config: its settings.
        make_log: makes the log, given whom to tell when it breaks.
        on_log_broken: told when the log can't be trusted any more; the process must stop without another word.
        clock: where time comes from.
        entropy: where chance comes from.
        failpoints: planned crashes, for tests.
        trail: the audit trail; None keeps it in memory alone.
        trace: where protocol events are told; None tells nobody.
    """

    def __init__(
        self,
        config: CoordinatorConfig,
        make_log: MakeLog,
        on_log_broken: OnBroken,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        failpoints: Failpoints | None = None,
        trail: Trail | None = None,
        trace: Sink | None = None,
    ) -> None:
        self.config = config
        self.address = config.address
        self.frame_port: FramePort | None = None
        self._on_log_broken = on_log_broken
        self._clock = clock or SystemClock()
        self._entropy = entropy or SystemEntropy()
        self._failpoints = failpoints or Failpoints()
        self.trail = trail or Trail(self._clock)
        self._trace = trace
        self._log = make_log(on_log_broken)
        self._end_streams = asyncio.Event()
        self._health = HealthServicer()
        self._cleaning: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server
        self.requests: Requests
        self.links: Links
        self.recovery: Recovery

    # -- start -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the log, take up what is decided, and serve. ``address`` holds the real port afterwards.

        Raises:
            HandfastFault: an entry of kind ``start``; nothing is left open.
        """
        identity = await self._log.open()
        try:
            self._assemble(identity.coordinator_id, identity.epoch)
            self._server = grpc.aio.server(options=_server_options(self.config))
            self.frame_port = frame_port(self.config)
            await self._add_services()
            self.address = listen(self._server, self.config)
            warn_of_plain_text(self.config)
            self.recovery.start()
            self.links.connect()
            await self._server.start()
        except BaseException:
            await self._close()
            raise
        self._cleaning = asyncio.create_task(self._clean_up_for_ever())

    def _assemble(self, coordinator_id: str, epoch: int) -> None:
        options = driver_options(self.config)
        static = [
            ParticipantRecord(resource, STATIC_INSTANCE, address, "static", (), 0)
            for resource, address in self.config.participants.items()
        ]
        directory = Directory([*reversed(self._log.participants()), *static])
        tls = participant_tls(self.config)
        self.links = Links(
            directory, lambda address: self.recovery.on_link_up(address), tls, self.config.certified_name
        )
        driver = Driver(
            self._log, self.links, self._clock, self._entropy, options, self._failpoints, self._on_log_broken
        )
        if self._trace is not None:
            owner = Owner("coordinator", coordinator_id, monotonic_s=self._clock.now_s)
            driver.trace = ProtocolTrace(Trace(self._trace, owner), coordinator_id, epoch)
            driver.trace.started()
        started_unix_ms = self._log.life_started_unix_ms(epoch) or 0
        gtrids = Gtrids(coordinator_id, epoch, self._clock, options.block_lifetime_s, started_unix_ms)
        self.requests = Requests(driver, gtrids, directory, self.links.reachable)
        self.rows = RowRequests(self.requests, Cohorts(driver))
        self.recovery = Recovery(self.requests, self.links, self._entropy, self.config.sweep_interval_s)

    async def _add_services(self) -> None:
        requests, links = self.requests, self.links
        access = make_access(self.config, self.trail)
        streams = Streams(stream_limits(self.config), self._clock, self._end_streams)
        server = careful(self._server, partial(streams.admit, access.caller))
        coordinator = CoordinatorService(dispatch_for(requests, access, self.rows), streams, self.frame_port)
        in_doubt = InDoubtReport(requests, links, self.config.sweep_interval_s)
        resolution = Resolution(requests, links)
        stop, trail = self._end_streams, self.trail
        admin = AdminService(requests, links, self.recovery, resolution, in_doubt, stop, access, trail)
        coordinator_pb2_grpc.add_CoordinatorServicer_to_server(coordinator, server)
        admin_pb2_grpc.add_AdminServicer_to_server(admin, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        reflected = reflection.aio.ReflectionServicer((*SERVICES, health, reflection.SERVICE_NAME))
        add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
        add_reflection(reflected, server)
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    # -- stop ------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Refuse new work, finish what is decided for at most ``stop_grace_s``, answer, and close."""
        self.requests.stopping = True
        await self._health.enter_graceful_shutdown()
        self._roll_back(TransactionState.ACTIVE)
        await self._finish()
        self._end_streams.set()
        await self._server.stop(ANSWER_GRACE_S)
        await self._close()
        if (trace := self.requests.driver.trace) is not None:
            trace.stopped()

    def _roll_back(self, state: TransactionState) -> None:
        """Roll back what is in this state: active, for nobody may begin phase one any more; or still preparing after a
        moment. Whoever holds locks for it should hear so now. What the log decides just then is not rolled back."""
        driver = self.requests.driver
        for running in list(driver.transactions.values()):
            if running.transaction.state is state:
                driver.feed(running, e.RollbackRequested(Cause.OPERATOR, "the coordinator is stopping"))

    async def _finish(self) -> None:
        driver = self.requests.driver
        votes = self._clock.call_later(VOTES_WAIT_S, partial(self._roll_back, TransactionState.PREPARING))
        moved = asyncio.Event()

        def on_moved(running: Running) -> None:
            moved.set()

        driver.observers.append(on_moved)
        try:
            logger.info("stopping; %d transactions are to be finished", len(driver.transactions))
            async with asyncio.timeout(self.config.stop_grace_s):
                while any(not running.broken for running in driver.transactions.values()):
                    moved.clear()
                    await moved.wait()
        except TimeoutError:
            left = len(driver.transactions)
            logger.warning("stopping with %d transactions unfinished; the next start takes them up", left)
        finally:
            votes.cancel()
            driver.observers.remove(on_moved)

    async def _close(self) -> None:
        if self._cleaning is not None:
            self._cleaning.cancel()
            await asyncio.gather(self._cleaning, return_exceptions=True)
        if hasattr(self, "recovery"):
            await self.recovery.close()
            # Before the links: what fails as they close must not start anything.
            self.requests.driver.close()
            self.rows.cohorts.close()
            await self.links.close()
        if hasattr(self, "_server"):
            await self._server.stop(None)
        if self.frame_port is not None:
            self.frame_port.close()
        await self._log.close()

    # -- retention -------------------------------------------------------------------------------------------------

    async def _clean_up_for_ever(self) -> None:
        interval_s = min(CLEANUP_INTERVAL_S_MAX, self.config.retention_h * 3600 / CLEANUPS_PER_RETENTION)
        # Cleaning up raises the horizon, before which nothing is presumed aborted any more. After an outage longer
        # than the retention the orphans of that time must be swept first, or they stay for a person to resolve.
        wait_s = min(interval_s, SWEEPS_BEFORE_CLEANUP * self.config.sweep_interval_s)
        while True:
            await self._clock.sleep(wait_s)
            self.clean_up()
            wait_s = interval_s

    def clean_up(self) -> None:
        """Drop the transactions that ended longer ago than the retention."""
        horizon_unix_ms = self._clock.unix_ms() - int(self.config.retention_h * 3_600_000)
        self._log.forget_before(max(horizon_unix_ms, 0), _on_cleaned_up)


def _on_cleaned_up(result: int | LogRefused | LogBroken) -> None:
    if isinstance(result, LogRefused | LogBroken):
        logger.warning("old transactions could not be dropped from the log: %s", result)
    elif result:
        logger.info("%d old transactions were dropped from the log", result)


def _server_options(config: CoordinatorConfig) -> Options:
    return (
        *server_options(config.frame_bytes_max, config.keepalive_s, config.connection_age_max_s),
        ("grpc.max_concurrent_streams", config.calls_per_connection_max),
        ("grpc.max_allowed_incoming_connections", config.connections_max),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
    )


def stream_limits(config: CoordinatorConfig) -> StreamLimits:
    """The limits on streams, from the settings."""
    return StreamLimits(
        streams_per_peer_max=config.streams_per_peer_max,
        messages_per_s_max=config.messages_per_s_max,
        age_max_s=config.connection_age_max_s,
        calls_max=config.calls_per_stream_max,
        bytes_max=config.bytes_per_stream_max,
        share_max=config.share_max,
    )


def driver_options(config: CoordinatorConfig) -> DriverOptions:
    """The driver's limits and times, from the settings."""
    return DriverOptions(
        default_timeout_s=config.default_timeout_s,
        timeout_max_s=config.timeout_max_s,
        apply_wait_s=config.apply_wait_s,
        branches_max=config.branches_max,
        open_transactions_max=config.open_transactions_max,
        open_transactions_per_client_max=config.open_transactions_per_client_max,
        payload_bytes_max=config.payload_bytes_max,
        retention_s=config.retention_h * 3600,
        retry_base_s=config.retry_base_s,
        retry_cap_s=config.retry_cap_s,
        block_lifetime_s=config.block_lifetime_s,
        participants_max=config.participants_max,
        finished_kept_max=config.finished_kept_max,
    )


# -- the process ---------------------------------------------------------------------------------------------------


async def serve(config: CoordinatorConfig) -> int:
    """Run the coordinator until a signal stops it.

    Args:
        config: its settings.

    Returns:
        The process's exit code.

    Raises:
        HandfastFault: it can't start.
    """
    failpoints = Failpoints.from_environment()
    clock = SystemClock()
    trail = Trail(clock, config.trail_file)
    trace = TraceFile(str(config.trace), "trace") if config.trace is not None else None
    server = CoordinatorServer(
        config, _log_maker(config, clock, failpoints), _exit_log_broken, clock, None, failpoints, trail, trace
    )
    told_to_stop = asyncio.Event()
    with _signals(told_to_stop):
        collector.calm()
        await server.start()
        _say_ready(server)
        await told_to_stop.wait()
        await server.stop()
    return 0


def _log_maker(config: CoordinatorConfig, clock: SystemClock, failpoints: Failpoints) -> MakeLog:
    def make_log(on_broken: OnBroken) -> LogStore:
        return SqliteLog(
            config.log,
            make_coordinator_id=SystemEntropy().coordinator_id,
            on_broken=on_broken,
            unix_ms=clock.unix_ms,
            expected_coordinator_id=config.coordinator_id,
            before_force=lambda records: failpoints.reach("before-fsync"),
            around=together,
            at_end=together.at_end,
        )

    return make_log


def _say_ready(server: CoordinatorServer) -> None:
    gtrids = server.requests.gtrids
    where = f"{server.address} (coordinator {gtrids.coordinator_id}, epoch {gtrids.epoch}, log {server.config.log})"
    sys.stdout.write(f"handfast is ready at {where}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def _signals(told_to_stop: asyncio.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT stop the process: the first in good order, the second at once."""
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if told_to_stop.is_set():
            logger.warning("%s again: leaving at once; the next start finishes what is decided", number.name)
            _exit(128 + number)
        logger.info("%s: stopping", number.name)
        told_to_stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _exit_log_broken(broken: LogBroken) -> None:
    logger.critical("leaving at once, for the decision log can't be trusted any more: %s", broken)
    _exit(EXIT_LOG_BROKEN)


def _exit(code: int) -> None:
    """End the process here and now: no handler runs, and nothing more is answered."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
