"""What an operator asks: reports, and interventions by hand."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message

from coordinator.log.records import ParticipantRecord
from coordinator.rpc import codec
from coordinator.rpc.access import Access
from coordinator.rpc.history import resolution_entry
from coordinator.rpc.trail import Trail
from coordinator.rpc.watching import Watcher
from coordinator.runtime.audit import Audit
from coordinator.runtime.diagnosis import Diagnosis
from coordinator.runtime.in_doubt import InDoubtReport
from coordinator.runtime.inspection import list_transactions
from coordinator.runtime.links import Links
from coordinator.runtime.recovery import Recovery
from coordinator.runtime.requests import Requests
from coordinator.runtime.resolution import Resolution
from handfast.catalog import HandfastFault
from handfast.frames import CallFailed, abort
from handfast.identity import Identity
from handfast.v1 import admin_pb2 as a
from handfast.v1 import participant_pb2 as p
from handfast.v1.admin_pb2_grpc import AdminServicer
from handfast.xid import is_gtrid

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 3.0
LISTED_DEFAULT = 100

Context = grpc.aio.ServicerContext[Any, Any]
R = TypeVar("R", bound=Message)
Q = TypeVar("Q", bound=Message)


class AdminService(AdminServicer):
    """The servicer.

    Args:
        requests: the coordinator's requests.
        links: the way to participants.
        recovery: the sweep, for its counters.
        resolution: what an operator may do.
        in_doubt: the report on branches in doubt.
        stop: when set, watching ends.
        access: says who asks; only an operator is answered.
        trail: where what operators do is written.
    """

    def __init__(
        self,
        requests: Requests,
        links: Links,
        recovery: Recovery,
        resolution: Resolution,
        in_doubt: InDoubtReport,
        stop: asyncio.Event,
        access: Access,
        trail: Trail,
    ) -> None:
        self._requests = requests
        self._driver = requests.driver
        self._links = links
        self._recovery = recovery
        self._resolution = resolution
        self._in_doubt = in_doubt
        self._stop = stop
        self._access = access
        self._trail = trail
        self._audit = Audit(requests, links)
        self._diagnosis = Diagnosis(requests, links)
        self._started_s = requests.driver.clock.now_s()

    # -- reports ---------------------------------------------------------------------------------------------------

    async def GetStatus(self, request: a.GetStatusRequest, context: Context) -> a.GetStatusResponse:
        return await self._answered(self._get_status, request, context)

    async def _get_status(self, request: a.GetStatusRequest) -> a.GetStatusResponse:
        driver, gtrids = self._driver, self._requests.gtrids
        logged = driver.log.counters()
        counters = driver.counters | self._recovery.counters
        counters |= {"log_forces": logged["forces"], "log_records": logged["records"]}
        held = Counter(state.name for _, state, _ in driver.transactions.standings())
        return a.GetStatusResponse(
            coordinator_id=gtrids.coordinator_id,
            epoch=gtrids.epoch,
            version=version("handfast"),
            uptime_ms=int((driver.clock.now_s() - self._started_s) * 1000),
            transactions_by_state=held,
            counters=counters,
            log=driver.log.path,
            stopping=self._requests.stopping,
        )

    async def ListTransactions(
        self, request: a.ListTransactionsRequest, context: Context
    ) -> a.ListTransactionsResponse:
        return await self._answered(self._list_transactions, request, context)

    async def _list_transactions(self, request: a.ListTransactionsRequest) -> a.ListTransactionsResponse:
        unknown = [number for number in request.states if number not in codec.STATES_OF_WIRE]
        if unknown:
            raise HandfastFault("FIELD_INVALID", field="states", problem=f"{unknown[0]} is no state to list")
        states = {codec.STATES_OF_WIRE[number] for number in request.states}
        found, more = list_transactions(self._driver, states, request.limit)
        return a.ListTransactionsResponse(transactions=map(codec.transaction_message, found), more=more)

    async def GetTransaction(self, request: a.GetTransactionRequest, context: Context) -> a.GetTransactionResponse:
        return await self._answered(self._get_transaction, request, context)

    async def _get_transaction(self, request: a.GetTransactionRequest) -> a.GetTransactionResponse:
        running = self._requests.show(request.gtrid)
        if running is None:
            raise HandfastFault("TRANSACTION_UNKNOWN", gtrid=request.gtrid)
        interventions = [resolution_entry(record) for record in self._driver.log.resolutions(request.gtrid)]
        return a.GetTransactionResponse(transaction=codec.transaction_with_history(running, interventions))

    async def WatchTransactions(
        self, request: a.WatchTransactionsRequest, context: Context
    ) -> AsyncIterator[a.WatchTransactionsResponse]:
        try:
            self._operator(context, "watch transactions")
            if request.gtrid and not is_gtrid(request.gtrid):
                raise HandfastFault("GTRID_MALFORMED", text=request.gtrid[:80])
        except HandfastFault as fault:
            await abort(context, fault)
        with Watcher(self._driver, request.gtrid) as watcher:
            # The headers tell the caller that from now on it misses nothing.
            await context.send_initial_metadata(())
            async for change in watcher.changes(self._stop):
                yield change

    async def ListInDoubt(self, request: a.ListInDoubtRequest, context: Context) -> a.ListInDoubtResponse:
        return await self._answered(self._list_in_doubt, request, context)

    async def _list_in_doubt(self, request: a.ListInDoubtRequest) -> a.ListInDoubtResponse:
        found, unreachable = await self._in_doubt.list()
        response = a.ListInDoubtResponse(unreachable=unreachable)
        for one in found:
            shown = response.branches.add(branch=one.branch, why=one.why, command=one.command, resource=one.resource)
            shown.foreign, shown.not_asked = one.foreign, one.not_asked
            if one.state is not None:
                shown.state = codec.TRANSACTION_STATES[one.state]
        return response

    async def ListParticipants(
        self, request: a.ListParticipantsRequest, context: Context
    ) -> a.ListParticipantsResponse:
        return await self._answered(self._list_participants, request, context)

    async def _list_participants(self, request: a.ListParticipantsRequest) -> a.ListParticipantsResponse:
        known = sorted(self._requests.directory, key=lambda one: (one.resource, one.instance))
        return a.ListParticipantsResponse(participants=await asyncio.gather(*map(self._probe, known)))

    async def _probe(self, known: ParticipantRecord) -> a.ParticipantInfo:
        """Show a participant as it is now: whether it can be reached is found out by asking it something."""
        info = a.ParticipantInfo(
            resource=known.resource,
            instance=known.instance,
            address=known.address,
            kind=known.kind,
            registered_unix_ms=known.registered_unix_ms,
            operations=known.operations,
        )
        question = p.RecoverRequest(resource=known.resource, coordinator_id=self._requests.gtrids.coordinator_id)
        try:
            await self._links.ask(known, question, PROBE_TIMEOUT_S)
            info.reachable = True
        except CallFailed as failure:
            info.reachable = failure.answered
            info.last_error = "" if failure.answered else failure.message
        info.batched = info.reachable and bool(self._links.batched(known))
        return info

    # -- interventions and checks ----------------------------------------------------------------------------------

    async def Resolve(self, request: a.ResolveRequest, context: Context) -> a.ResolveResponse:
        return await self._answered(partial(self._resolve, context), request, context)

    async def _resolve(self, context: Context, request: a.ResolveRequest) -> a.ResolveResponse:
        action = codec.ACTIONS_OF_WIRE.get(request.action)
        if action is None:
            raise HandfastFault("FIELD_INVALID", field="action", problem="it names nothing to do")
        operator = self._named(context, request.operator)
        write = partial(
            self._trail.did,
            operator or "an operator",
            f"resolve --{action}{' --heuristic' if request.heuristic else ''}",
            peer=context.peer(),
            gtrid=request.gtrid[:80],
            reason=request.reason,
            before=self._state_of(request.gtrid),
        )
        logger.warning("%s resolves %s: %s", operator or "an operator", request.gtrid, action)
        try:
            running, done = await self._resolution.resolve(
                request.gtrid, action, request.heuristic, operator, request.reason
            )
        except HandfastFault as fault:
            write(after=self._state_of(request.gtrid), error=fault.code)
            raise
        logger.warning("resolved %s: %s", request.gtrid, done)
        write(after="forgotten" if action == "forget" else self._state_of(request.gtrid))
        response = a.ResolveResponse(done=done)
        if running is not None:
            response.transaction.CopyFrom(codec.transaction_message(running))
        return response

    async def Audit(self, request: a.AuditRequest, context: Context) -> a.AuditResponse:
        return await self._answered(self._run_audit, request, context)

    async def _run_audit(self, request: a.AuditRequest) -> a.AuditResponse:
        return await self._audit.run(request.since_unix_ms)

    async def Diagnose(self, request: a.DiagnoseRequest, context: Context) -> a.DiagnoseResponse:
        return await self._answered(self._diagnose, request, context)

    async def _diagnose(self, request: a.DiagnoseRequest) -> a.DiagnoseResponse:
        return a.DiagnoseResponse(findings=await self._diagnosis.run())

    async def ListOperations(self, request: a.ListOperationsRequest, context: Context) -> a.ListOperationsResponse:
        return await self._answered(self._list_operations, request, context)

    async def _list_operations(self, request: a.ListOperationsRequest) -> a.ListOperationsResponse:
        found = self._trail.entries(request.limit or LISTED_DEFAULT, request.gtrid, refused_only=request.refused_only)
        return a.ListOperationsResponse(operations=[a.OperatorAction(**asdict(entry)) for entry in found])

    def _state_of(self, gtrid: str) -> str:
        """Where a transaction stands, in a word, for the trail."""
        try:
            running = self._requests.show(gtrid)
        except HandfastFault:
            return "no such transaction"
        return running.transaction.state.value if running else "no record"

    # -- who asks --------------------------------------------------------------------------------------------------

    def _operator(self, context: Context, wish: str, gtrid: str = "") -> Identity | None:
        """Who asks; None when nobody has to say.

        Raises:
            HandfastFault: IDENTITY_MISSING or PERMISSION_DENIED.
        """
        caller = self._access.whose(context)
        if caller is not None and not caller.admin:
            needed, peer = "an admin", context.peer()
            self._access.deny(caller.name, wish, "PERMISSION_DENIED", peer=peer, gtrid=gtrid[:80], needed=needed)
        return caller

    def _named(self, context: Context, named_itself: str) -> str:
        """What the operator is called in the records: by the identity, where there is one."""
        caller = self._access.whose(context)
        if caller is None:
            return named_itself
        return f"{caller.name} ({named_itself})" if named_itself else caller.name

    async def _answered(self, handle: Callable[[Q], Awaitable[R]], request: Q, context: Context) -> R:
        """Answer with what the handler returns, or with the fault that it raised.

        Raises:
            grpc.aio.AbortError: the call was answered with a fault.
        """
        gtrid = getattr(request, "gtrid", "")
        try:
            self._operator(context, f"ask the coordinator's Admin service a {type(request).__name__}", gtrid)
            return await handle(request)
        except HandfastFault as fault:
            await abort(context, fault)
        except Exception as defect:
            logger.exception("Admin failed on a %s of %s", type(request).__name__, gtrid or "-")
            await abort(context, HandfastFault("INTERNAL", gtrid=gtrid, problem=f"{type(defect).__name__}: {defect}"))
