"""The gRPC side of a participant: the Participant service, and the interceptor that joins the caller's transaction.

Unary calls and batches (Connect) enter the same dispatch, so that both behave alike. One servicer serves all the
resources of a process and finds the right one by the branch's name.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import grpc
import grpc.aio
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.context import from_metadata, joined_to_metadata, set_current, within
from handfast.frames import PARTICIPANT, FramePort, Reply, abort, answer_unary, careful, carried, serve_frames, together
from handfast.identity import identity_of_peer
from handfast.v1 import participant_pb2 as p
from handfast.v1 import participant_pb2_grpc
from handfast.xid import MalformedName, Xid, check_gtrid, is_gtrid, split_bqual
from participant import wire
from participant.clock import Clock
from participant.driver import Driver
from participant.recovery import Recovery
from participant.tasks import Tasks

if TYPE_CHECKING:
    # The stubs disagree with the run time, and with each other, on these classes' type parameters.
    Interceptor = object
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Interceptor = grpc.aio.ServerInterceptor

_SERVICE = "participant"

_Start = Callable[[Any], object]
"""Takes a request; returns what it found, or the task that will find it."""

_Respond = Callable[[Any, Any], Message]
"""Puts what was found into the response to the request."""
_OWN_METHODS = "/handfast.v1."
_HANDLERS_KEPT_MAX = 1_000

log = logging.getLogger(__name__)


def _no_frame_port() -> FramePort | None:
    return None


class Host:
    """One resource, as the servicer sees it.

    Args:
        resource: its name.
        driver: its branches.
        recovery: for findings.
        clock: for Inspect.
        coordinator_names: names in a certificate that make a coordinator, besides the role's own forms.
        open_frame_port: opens the process's frame port; may give None.
    """

    def __init__(
        self,
        resource: str,
        driver: Driver[Any],
        recovery: Recovery,
        clock: Clock,
        coordinator_names: Collection[str] = (),
        open_frame_port: Callable[[], FramePort | None] = _no_frame_port,
    ) -> None:
        self.resource = resource
        self.driver = driver
        self.recovery = recovery
        self.clock = clock
        self.coordinator_names = coordinator_names
        self.open_frame_port = open_frame_port


class ParticipantServicer(participant_pb2_grpc.ParticipantServicer):
    """The Participant service of a process, over all its resources."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}
        self._tasks = Tasks()
        self._stop = asyncio.Event()
        self._frame_port: FramePort | None = None
        self._takes: dict[type[Message], tuple[_Start, _Respond]] = {
            p.PrepareRequest: (self._prepare, wire.prepare_response),
            p.ParticipantCommitRequest: (self._commit, wire.commit_response),
            p.CommitOnePhaseRequest: (self._commit_one_phase, wire.one_phase_response),
            p.ParticipantRollbackRequest: (self._rollback, wire.rollback_response),
            p.RecoverRequest: (self._recover, _as_it_is),
            p.ForgetRequest: (self._forget, _as_it_is),
            p.InspectRequest: (self._inspect, _as_it_is),
        }

    def attach(self, host: Host) -> None:
        """Serve a resource from now on."""
        if self._frame_port is None:
            self._frame_port = host.open_frame_port()
        self._hosts[host.resource] = host
        self._stop.clear()

    def detach(self, resource: str) -> None:
        """Serve it no more; without any resource left the batched streams end, so that the server can stop."""
        self._hosts.pop(resource, None)
        if not self._hosts:
            self._stop.set()
            if self._frame_port is not None:
                self._frame_port.close()
                self._frame_port = None

    def dispatch(self, request: Message, reply: Reply) -> None:
        """Take one call, unary or out of a batch. It is decided now, and answered now or when its task has ended.

        Raises:
            HandfastFault: the answer is no.
        """
        start, respond = self._takes[type(request)]
        found = start(request)
        if isinstance(found, asyncio.Task):
            found.add_done_callback(partial(_answer, request, reply, respond))
        else:
            reply(respond(found, request))

    def _host(self, resource: str) -> Host:
        host = self._hosts.get(resource)
        if host is None:
            known = ", ".join(sorted(self._hosts)) or "none"
            raise HandfastFault("RESOURCE_NOT_HERE", resource=resource, known=known)
        return host

    def _driver(self, gtrid: str, bqual: str) -> Driver[Any]:
        """The driver of a branch, whose name is checked here, once, before anything else sees it."""
        try:
            check_gtrid(gtrid)
            resource = split_bqual(bqual)[0]
        except MalformedName as problem:
            if problem.kind == "gtrid":
                raise HandfastFault("GTRID_MALFORMED", text=gtrid[:80]) from problem
            raise HandfastFault("NAME_MALFORMED", text=problem.text, kind=problem.kind) from problem
        return self._host(resource).driver

    # -- the calls -------------------------------------------------------------------------------------------------

    def _prepare(self, request: p.PrepareRequest) -> object:
        driver = self._driver(request.gtrid, request.bqual)
        return driver.start_prepare(request.gtrid, request.bqual, wire.timeout_s(request), request.operations)

    def _commit_one_phase(self, request: p.CommitOnePhaseRequest) -> object:
        driver = self._driver(request.gtrid, request.bqual)
        return driver.start_commit_one_phase(request.gtrid, request.bqual, wire.timeout_s(request), request.operations)

    def _commit(self, request: p.ParticipantCommitRequest) -> object:
        return self._driver(request.gtrid, request.bqual).start_commit(request.gtrid, request.bqual, request.proof)

    def _rollback(self, request: p.ParticipantRollbackRequest) -> object:
        return self._driver(request.gtrid, request.bqual).start_rollback(request.gtrid, request.bqual, request.proof)

    def _recover(self, request: p.RecoverRequest) -> object:
        return self._tasks.start(self._recovered(self._host(request.resource), request))

    async def _recovered(self, host: Host, request: p.RecoverRequest) -> Message:
        found = await host.driver.list_prepared(request.resource, request.coordinator_id, detail=request.detail)
        return wire.recover_response(found)

    def _forget(self, request: p.ForgetRequest) -> object:
        self._driver(request.gtrid, request.bqual).forget(request.gtrid, request.bqual)
        return p.ForgetResponse()

    def _inspect(self, request: p.InspectRequest) -> object:
        return self._tasks.start(self._inspected(self._host(request.resource), request))

    async def _inspected(self, host: Host, request: p.InspectRequest) -> Message:
        asked = [_branch(proof) for proof in request.branches]
        findings = [*host.recovery.findings(), *await host.driver.manager.inspect()]
        ends = await host.driver.manager.ends_of(asked) if asked else []
        return p.InspectResponse(
            findings=[wire.finding(found, host.resource) for found in findings],
            ends=[wire.branch_end(xid, found) for (xid, _), found in zip(asked, ends, strict=True)],
            clock_unix_ms=host.clock.unix_ms(),
        )

    async def _check_caller(self, context: Any) -> None:
        """Refuse whoever shows a certificate and is no coordinator; looked at once for each stream.

        An application's certificate opens the service's own methods on this server; it must not end branches.

        Raises:
            grpc.aio.AbortError: the call was answered with CALLER_NOT_COORDINATOR.
        """
        shown = context.auth_context()
        if "x509_pem_cert" not in shown:
            return
        identity = identity_of_peer(shown)
        names = {name.decode("utf-8", "replace") for key in ("peer_uri", "peer_dns") for name in shown.get(key, ())}
        trusted = {name for host in self._hosts.values() for name in host.coordinator_names}
        if identity is None or not (identity.coordinator or names & trusted):
            fault = HandfastFault("CALLER_NOT_COORDINATOR", who=identity.name if identity else "somebody")
            log.warning("denied: %s peer=%s", fault.message, context.peer())
            await abort(context, fault)

    # -- gRPC's names for them -------------------------------------------------------------------------------------

    async def Prepare(self, request: Any, context: Any) -> Any:
        """Unary."""
        await self._check_caller(context)
        return await answer_unary(self.dispatch, request, context, service=_SERVICE)

    Commit = CommitOnePhase = Rollback = Recover = Forget = Inspect = Prepare

    async def Connect(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # it writes itself
        """Batched."""
        await self._check_caller(context)
        async with carried(PARTICIPANT, self._frame_port, request_iterator, context) as (frames, replies):
            await serve_frames(PARTICIPANT, frames, replies, self.dispatch, stop=self._stop)


def _as_it_is(found: Any, _: Message) -> Message:
    return cast("Message", found)


def _answer(request: Message, reply: Reply, respond: _Respond, task: asyncio.Task[Any]) -> None:
    """Answer a call whose task has ended."""
    answer: Message | HandfastFault
    try:
        answer = respond(task.result(), request)
    except HandfastFault as fault:
        answer = fault
    except MalformedName as problem:
        answer = HandfastFault("NAME_MALFORMED", text=problem.text, kind=problem.kind)
    except asyncio.CancelledError:
        answer = HandfastFault("INTERNAL", problem="the participant was stopped meanwhile")
    except Exception as problem:
        log.exception("%s of %s failed", type(request).__name__, getattr(request, "gtrid", "-"))
        answer = HandfastFault("INTERNAL", problem=f"{type(problem).__name__}: {problem}")
    with together:
        reply(answer)


def _branch(asked: p.BranchProof) -> tuple[Xid, str]:
    if not is_gtrid(asked.gtrid):
        raise HandfastFault("GTRID_MALFORMED", text=asked.gtrid[:80])
    split_bqual(asked.bqual)
    return Xid(asked.gtrid, asked.bqual), asked.proof


_servicers: WeakKeyDictionary[Any, ParticipantServicer] = WeakKeyDictionary()


def servicer_of(server: grpc.aio.Server) -> ParticipantServicer:
    """The Participant servicer of a server, added when it has none yet: participants share it."""
    servicer = _servicers.get(server)
    if servicer is None:
        servicer = _servicers[server] = ParticipantServicer()
        participant_pb2_grpc.add_ParticipantServicer_to_server(servicer, careful(server))
    return servicer


class TransactionInterceptor(Interceptor):
    """Makes the caller's transaction ambient in the handler, and turns our faults into proper statuses.

    A handler that is not a coroutine function (gRPC runs it in a thread) is left alone: it can't enter a branch.
    """

    def __init__(self) -> None:
        # A server looks its handlers up anew for each call, and mostly finds the same objects.
        self._joined: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_OWN_METHODS):
            return handler
        known = self._joined.get(method)
        if known is None or known[0] is not handler:
            if len(self._joined) >= _HANDLERS_KEPT_MAX:  # whoever handles all names takes any that are made up
                self._joined.clear()
            known = self._joined[method] = (handler, _joined(handler))
        return known[1]


def _joined(handler: Any) -> Any:
    """The handler, working inside the caller's transaction."""
    kinds = {
        (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
        (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
        (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
        (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
    }
    name, make = kinds[bool(handler.request_streaming), bool(handler.response_streaming)]
    behaviour = getattr(handler, name)
    if inspect.isasyncgenfunction(behaviour):
        wrapped: Any = _joined_generator(behaviour)
    elif inspect.iscoroutinefunction(behaviour):
        wrapped = _joined_coroutine(behaviour)
    else:
        return handler
    return make(
        wrapped,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _joined_coroutine(behaviour: Callable[[Any, Any], Awaitable[Any]]) -> Any:
    async def joined(request: Any, context: Context) -> Any:
        try:
            transaction = from_metadata(context.invocation_metadata())
            before = set_current(transaction)
            try:
                response = await behaviour(request, context)
            finally:
                set_current(before)
        except HandfastFault as fault:
            await abort(context, fault)
        if transaction is not None and transaction.branches:
            context.set_trailing_metadata((*context.trailing_metadata(), *joined_to_metadata(transaction)))
        return response

    return joined


def _joined_generator(behaviour: Callable[[Any, Any], AsyncIterator[Any]]) -> Any:
    async def joined(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            with within(from_metadata(context.invocation_metadata())):
                async for response in behaviour(request, context):
                    yield response
        except HandfastFault as fault:
            await abort(context, fault)

    return joined
