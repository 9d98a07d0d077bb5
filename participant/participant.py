"""Participant: what a service embeds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast, overload

import grpc
import grpc.aio
import psycopg
from psycopg.rows import TupleRow

from handfast import context
from handfast.catalog import HandfastFault
from handfast.frames import FramePort
from handfast.tls import ServerTls, TlsConfig
from handfast.v1 import coordinator_pb2 as c
from handfast.xid import MalformedName, check_instance, check_resource, make_bqual
from participant.clock import Clock, SystemClock
from participant.config import OFF, ParticipantOptions
from participant.driver import Driver
from participant.failpoints import Failpoints
from participant.link import Link
from participant.operations import Operations, Work
from participant.postgres import PostgresResource
from participant.recovery import Recovery
from participant.resource import ResourceManager
from participant.server import Host, ParticipantServicer, TransactionInterceptor, servicer_of
from participant.trace import trace_of

log = logging.getLogger(__name__)

ConnectionT = TypeVar("ConnectionT")
PostgresConnection = psycopg.AsyncConnection[TupleRow]


class Participant(Generic[ConnectionT]):
    """One resource, held by this process for the coordinator.

    Args:
        name: the resource's name, ``[a-z][a-z0-9_-]{0,31}``; every instance of a service over one database uses the
            same, and nobody else.
        resource: the Postgres DSN, or another resource manager.
        coordinator: the coordinator's address, ``host:port``.
        address: where the coordinator reaches this process's gRPC server, ``host:port``.
        options: pools, timeouts and limits.
        credentials: for TLS to the coordinator; the files of a ``handfast.TlsConfig`` are read again when they change.
            None speaks plain text. For TLS on this process's own server see ``handfast.ServerTls``.
        server_tls: the same files as that server's, for frames that come in beside it; without them they come by gRPC.
        token_file: a file with a bearer token, for a coordinator that knows callers by tokens.
        clock: where time and chance come from.
        instance: this process's name; None makes a new one, as it should be at each start.

    Raises:
        HandfastFault: SETTING_INVALID.
    """

    @overload
    def __init__(
        self: Participant[PostgresConnection],
        name: str,
        resource: str,
        *,
        coordinator: str,
        address: str,
        options: ParticipantOptions | None = ...,
        credentials: TlsConfig | grpc.ChannelCredentials | None = ...,
        server_tls: ServerTls | None = ...,
        token_file: Path | str | None = ...,
        clock: Clock | None = ...,
        instance: str | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        name: str,
        resource: ResourceManager[ConnectionT],
        *,
        coordinator: str,
        address: str,
        options: ParticipantOptions | None = ...,
        credentials: TlsConfig | grpc.ChannelCredentials | None = ...,
        server_tls: ServerTls | None = ...,
        token_file: Path | str | None = ...,
        clock: Clock | None = ...,
        instance: str | None = ...,
    ) -> None: ...

    def __init__(
        self,
        name: str,
        resource: str | ResourceManager[Any],
        *,
        coordinator: str,
        address: str,
        options: ParticipantOptions | None = None,
        credentials: TlsConfig | grpc.ChannelCredentials | None = None,
        server_tls: ServerTls | None = None,
        token_file: Path | str | None = None,
        clock: Clock | None = None,
        instance: str | None = None,
    ) -> None:
        self._options = options or ParticipantOptions()
        self._clock: Clock = clock or SystemClock()
        self.resource = _checked("name", name, check_resource)
        self.instance = _checked("instance", instance or self._clock.instance_name(), check_instance)
        self.bqual = make_bqual(self.resource, self.instance)
        self.address = address
        manager = PostgresResource(resource, self._options, self._clock) if isinstance(resource, str) else resource
        self._manager: ResourceManager[ConnectionT] = cast("ResourceManager[ConnectionT]", manager)
        self._operations = Operations[ConnectionT]()
        told = self._on_registered
        self._link = Link(coordinator, credentials, self._registration, self._options, self._clock, told, token_file)
        self._driver = Driver(
            self.bqual,
            self._manager,
            self._operations,
            self._options,
            self._clock,
            self._enlist,
            Failpoints.from_environment(),
            trace_of(self.bqual, self._clock),
        )
        self._recovery = Recovery(self.resource, self._driver, self._link.inquire, self._options, self._clock)
        self._server_tls = server_tls
        self._servicers: list[ParticipantServicer] = []
        self._open = False

    # -- in the service --------------------------------------------------------------------------------------------

    def branch(self) -> AbstractAsyncContextManager[ConnectionT]:
        """Work in the caller's global transaction.

        Calls of the same transaction share one branch and its connection, one at a time; a block inside a block of the
        same task is the same piece of work. Leaving the block normally leaves the branch open for the coordinator to
        prepare; leaving it by an exception rolls the branch back at once, and the transaction can't commit any more.
        Don't call a service inside the block that will call back into this resource: it would wait for the block.

        Returns:
            A context manager that gives the connection: for Postgres a psycopg AsyncConnection in a transaction whose
            commit() and rollback() are refused.

        Raises:
            HandfastFault: on entering, OUTSIDE_TRANSACTION when the call carries none; DEADLINE_PASSED,
                BRANCH_NOT_ACTIVE, CONNECTIONS_EXHAUSTED, DATABASE_UNREACHABLE, PARTICIPANT_CLOSED. On leaving,
                ENLIST_FAILED, and BRANCH_FAILED when the work left the transaction in a state that can't be prepared.
        """
        transaction = context.current()
        if transaction is None:
            raise HandfastFault("OUTSIDE_TRANSACTION", resource=self.resource)
        if not self._open:
            raise HandfastFault("PARTICIPANT_CLOSED", gtrid=transaction.gtrid, bqual=self.bqual)
        left_s = transaction.time_left_s()
        return self._driver.floor.join(transaction.gtrid, self._clock.monotonic_s() + left_s)

    def operation(self, name: str) -> Callable[[Work[ConnectionT]], Work[ConnectionT]]:
        """Register work for one-shot transactions: ``async def withdraw(conn, payload: bytes) -> bytes | None``.

        Args:
            name: what transactions call it.

        Raises:
            ValueError: the name is taken, or empty.
        """

        def register(work: Work[ConnectionT]) -> Work[ConnectionT]:
            self._operations.add(name, work)
            return work

        return register

    # -- the server and the life of the process --------------------------------------------------------------------

    def interceptors(self) -> list[Any]:
        """What the service's gRPC server needs: ``grpc.aio.server(interceptors=accounts.interceptors())``."""
        return interceptors(self)

    def add_to_server(self, server: grpc.aio.Server) -> None:
        """Add the Participant service to a server that has not started; several participants share it."""
        servicer = servicer_of(server)
        self._servicers.append(servicer)
        if self._open:
            servicer.attach(self._host())

    async def __aenter__(self) -> Self:
        """Open the resource, register, and begin to recover branches in doubt; none of which must succeed at once.

        Raises:
            HandfastFault: SETTING_INVALID, the DSN can't be read, or the frame port can't be had; nothing is left open.
        """
        await self._manager.open(self.bqual)
        try:
            for servicer in self._servicers:
                servicer.attach(self._host())
        except HandfastFault:
            for servicer in self._servicers:
                servicer.detach(self.resource)
            await self._manager.close()
            raise
        self._open = True
        self._recovery.open()
        await self._link.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take no more work, roll back what is active, finish what is under way if that is soon, close everything.

        Branches in doubt stay prepared in the database; another instance, or this one when it starts again, ends them.
        """
        self._open = False
        await self._recovery.close()
        await self._driver.close()
        for servicer in self._servicers:
            servicer.detach(self.resource)
        await self._link.close()
        await self._manager.close()

    @property
    def registered(self) -> bool:
        """Whether the coordinator has taken the registration at least once."""
        return self._link.registered

    # -- inside ----------------------------------------------------------------------------------------------------

    def _host(self) -> Host:
        names = self._options.coordinator_names
        return Host(self.resource, self._driver, self._recovery, self._clock, names, self._open_frame_port)

    def _open_frame_port(self) -> FramePort | None:
        options = self._options
        if options.frame_address == OFF:
            return None
        host, _, port = (options.frame_address or f"{self.address.rpartition(':')[0]}:0").rpartition(":")
        tls = None if self._server_tls is None else self._server_tls.files()
        try:
            return FramePort(host.strip("[]"), int(port), via=options.frame_via, tls=tls)
        except OSError as problem:
            if options.frame_address:
                raise HandfastFault("SETTING_INVALID", setting="frame_address", problem=str(problem)) from problem
            log.warning("no frame port could be had on %s, so frames travel over gRPC: %s", host, problem)
            return None

    def _registration(self) -> c.RegisterRequest:
        return c.RegisterRequest(
            resource=self.resource,
            instance=self.instance,
            address=self.address,
            kind=self._manager.kind,
            operations=list(self._operations),
        )

    def _on_registered(self, coordinator_id: str, epoch: int) -> None:
        self._driver.floor.on_epoch(coordinator_id, epoch)
        self._recovery.on_registered(coordinator_id, epoch)

    def _enlist(self, gtrid: str, deadline_s: float) -> Coroutine[Any, Any, None]:
        return self._link.enlist(gtrid, self.resource, self.instance, deadline_s)


def interceptors(*participants: Participant[Any]) -> list[Any]:
    """What a gRPC server needs that serves the handlers of these participants; one for all of them."""
    return [TransactionInterceptor()] if participants else []


def _checked(setting: str, value: str, check: Callable[[str], str]) -> str:
    try:
        return check(value)
    except MalformedName as problem:
        raise HandfastFault("SETTING_INVALID", setting=setting, problem=str(problem)) from problem
