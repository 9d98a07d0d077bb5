"""The application's way to the coordinator.

    async with handfast.connect("localhost:7400") as tm:
        async with tm.transaction(timeout=5) as txn: ...
        result = await tm.execute([("accounts", "withdraw", payload), ("ledger", "credit", payload)])
        report = await tm.outcome(gtrid)

One channel and one batched stream carry the calls of every task. The module puts the parts together: blocks.py draws
gtrids, transaction.py is one transaction, settling.py asks until an outcome is known, errors.py says what went wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import grpc
import grpc.aio

from handfast.bearer import bearer
from handfast.blocks import GtridBlocks
from handfast.clock import Clock, MachineClock
from handfast.context import TransactionContext
from handfast.errors import CoordinatorUnavailable, OutcomeUnknown, UnknownTransaction, raise_unless_committed
from handfast.frames import COORDINATOR, CallFailed, CallStream
from handfast.outcomes import ExecuteResult, OutcomeReport, Standing, Verdict, report_of
from handfast.settling import Settler, no_answer
from handfast.tls import TlsConfig, frame_dialer, open_channel
from handfast.trace import Owner, Trace, trace_from_environment
from handfast.traced_settler import TracedSettler
from handfast.transaction import Transaction
from handfast.v1 import coordinator_pb2 as wire

Wait = Literal["applied", "decided"]
"""When a commit answers: when every branch has applied it (bounded by the coordinator), or when it is durable."""

OperationSpec = tuple[str, str, bytes]
"""Resource, operation, payload."""

OUTCOME_WAIT_S = 5.0
BLOCK_SIZE = 1024
DEFAULT_TIMEOUT_S = 30.0
"""Used when neither the application nor the coordinator names a timeout."""
TIMEOUT_S_MAX = (2**32 - 1) / 1000
BEGIN_WAIT_S = 5.0
UNKNOWN_KEPT_MAX = 10_000
"""Transactions of unknown outcome whose number of branches is remembered."""

_WAITS: dict[Wait, wire.Wait.ValueType] = {"applied": wire.WAIT_APPLIED, "decided": wire.WAIT_DECIDED}

log = logging.getLogger(__name__)


def connect(
    address: str,
    *,
    tls: TlsConfig | grpc.ChannelCredentials | None = None,
    token_file: Path | str | None = None,
    client: str = "",
    wait: Wait = "applied",
    outcome_wait: float = OUTCOME_WAIT_S,
    block_size: int = BLOCK_SIZE,
    clock: Clock | None = None,
) -> TransactionManager:
    """Make the way to a coordinator; ``async with`` opens it. No connection is made before the first transaction.

    Args:
        address: where it listens, ``host:port``.
        tls: how to trust it, and who this program is; files are read again when they change. None speaks without TLS.
        token_file: a file with a bearer token, for a coordinator that knows callers by tokens.
        client: this program's name in reports and per-client limits; at most 64 characters.
        wait: when commits answer, unless the transaction says otherwise.
        outcome_wait: how long past a transaction's deadline to go on asking for a lost outcome, in seconds.
        block_size: how many gtrids to draw at a time.
        clock: time and jitter for waits and retries; for tests.
    """
    return TransactionManager(
        address,
        tls=tls,
        token_file=token_file,
        client=client,
        wait=wait,
        outcome_wait=outcome_wait,
        block_size=block_size,
        clock=clock or MachineClock(),
    )


class TransactionManager:
    """An open way to a coordinator; made by ``handfast.connect``, whose arguments it takes."""

    def __init__(
        self,
        address: str,
        *,
        tls: TlsConfig | grpc.ChannelCredentials | None,
        token_file: Path | str | None = None,
        client: str,
        wait: Wait,
        outcome_wait: float,
        block_size: int,
        clock: Clock,
    ) -> None:
        if outcome_wait < 0 or block_size < 1 or len(client) > 64:
            raise ValueError("outcome_wait is at least 0 s, block_size at least 1, client at most 64 characters")
        self._address = address
        self._tls = tls
        self._token_file = token_file
        self._begin = wire.BeginRequest(block_size=block_size, client=client)
        self._wait = _WAITS[wait]
        self._outcome_wait_s = outcome_wait
        self._clock = clock
        self._blocks = GtridBlocks(self._fetch_block, clock)
        self._channel: grpc.aio.Channel | None = None
        self._calls: CallStream | None = None
        self._settling: Settler | None = None
        self._unknown: dict[str, int] = {}
        self._trace: Trace | None = None

    async def __aenter__(self) -> Self:
        """Open it.

        Raises:
            HandfastFault: SETTING_INVALID, HANDFAST_TRACE names a file that can't be written.
        """
        self._trace = trace_from_environment(Owner("client", self._begin.client, monotonic_s=self._clock.monotonic_s))
        self._channel = open_channel(self._address, self._tls)
        peer = f"the coordinator at {self._address}"
        self._calls = CallStream(
            self._channel,
            COORDINATOR,
            peer=peer,
            on_disconnect=self._blocks.drop,
            metadata=bearer(self._token_file),
            dialer=frame_dialer(self._address, self._tls),
        )
        self._settling = None  # one that was opened before spoke over calls that are closed
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Give up the connection. Calls under way fail; transactions not committed roll back at their deadline."""
        await self._blocks.close()
        if self._calls is not None:
            await self._calls.close()
        if self._channel is not None:
            await self._channel.close(None)

    @property
    def connected(self) -> bool:
        """Whether the coordinator is connected now; the first transaction connects, and each after a loss."""
        return self._calls is not None and self._calls.connected

    # -- transactions ----------------------------------------------------------------------------------------------

    def transaction(self, *, timeout: float | None = None, wait: Wait | None = None) -> Transaction:
        """A new transaction, begun where its ``async with`` block is entered.

        Args:
            timeout: how long it may stay undecided, in seconds; None leaves that to the coordinator.
            wait: when its commit answers; None takes what ``connect`` was told.

        Raises:
            ValueError: the timeout is not above 0.
        """
        chosen = self._wait if wait is None else _WAITS[wait]
        checked_s = _checked_timeout_s(timeout)
        return Transaction(lambda: self._draw(checked_s), self._settler(), chosen, self._outcome_wait_s)

    async def execute(
        self, operations: Iterable[OperationSpec], *, timeout: float | None = None, wait: Wait | None = None
    ) -> ExecuteResult:
        """Run a whole transaction in one call; its operations travel inside Prepare.

        Args:
            operations: resource, operation and payload of each. Those on one resource run in this order.
            timeout: how long it may stay undecided, in seconds; None leaves that to the coordinator.
            wait: when to answer; None takes what ``connect`` was told.

        Raises:
            TransactionAborted: no branch changed anything; says which said no, and why.
            HeuristicOutcome: a branch ended against the decision.
            OutcomeUnknown: nobody here can tell; ask later with ``tm.outcome(gtrid)``.
            CoordinatorUnavailable: it was not reached; nothing was done.
            Refused: the coordinator said no; nothing was done.
            ValueError: the timeout is not above 0.
        """
        request = wire.ExecuteRequest(wait=self._wait if wait is None else _WAITS[wait])
        for resource, name, payload in operations:
            request.operations.add(resource=resource, name=name, payload=payload)
        checked_s = _checked_timeout_s(timeout)
        try:
            verdict = await self._execute_once(request, checked_s)
        except UnknownTransaction as stale:
            # The block is of the coordinator's last life. That nothing ran is certain: this error is raised only for
            # the answer to the one request that ever carried this gtrid, never for the answer to a repeat.
            log.info("drawing a new gtrid: %s", stale)
            verdict = await self._execute_once(request, checked_s)
        raise_unless_committed(verdict)
        return ExecuteResult(verdict.gtrid, verdict.outcome, verdict.results, verdict.pending)

    # -- by gtrid, from any process ------------------------------------------------------------------------------------

    async def outcome(self, gtrid: str, *, branches: int = 0) -> OutcomeReport:
        """Ask what became of a transaction.

        Args:
            gtrid: which.
            branches: how many branches it is known to have, as ``OutcomeUnknown.branches`` says; 0 when that is not
                known (this object remembers it for the outcomes that were unknown to it). When the coordinator has
                restarted meanwhile, only two or more make it certain that a transaction without a commit record was
                aborted; otherwise the answer may be UNKNOWN.

        Raises:
            CoordinatorUnavailable: it was not reached within the outcome wait.
            Refused: the coordinator said no, for example because the gtrid is malformed.
        """
        try:
            inquiry = wire.InquireRequest(gtrid=gtrid, branches=branches or self._unknown.get(gtrid, 0))
            give_up_s = self._clock.monotonic_s() + self._outcome_wait_s
            answer = await self._settler().ask_patiently(inquiry, give_up_s)
        except CallFailed as failure:
            raise no_answer(failure, gtrid) from failure
        if not isinstance(answer, wire.InquireResponse):
            raise TypeError(f"the coordinator answered Inquire with a {type(answer).__name__}")
        return report_of(answer)

    async def commit(self, gtrid: str, *, branches: int = 0, wait: Wait | None = None) -> OutcomeReport:
        """Repeat a commit whose answer was lost; gives the first answer again.

        Args:
            gtrid: the transaction.
            branches: as in ``outcome``.
            wait: when to answer; None takes what ``connect`` was told.

        Raises:
            TransactionAborted: no branch changed anything.
            HeuristicOutcome: a branch ended against the decision.
            OutcomeUnknown: nobody here can tell.
            Refused: the gtrid is malformed.
        """
        chosen = self._wait if wait is None else _WAITS[wait]
        now_s = self._clock.monotonic_s()
        known = branches or self._unknown.get(gtrid, 0)
        verdict = await self._settler().commit(gtrid, chosen, now_s, branches=known, repeat=True)
        raise_unless_committed(verdict)
        return _report(verdict, Standing.COMMIT)

    async def rollback(self, gtrid: str, reason: str = "") -> OutcomeReport:
        """Roll a transaction back that nobody has asked to commit.

        Args:
            gtrid: the transaction.
            reason: why, for the reports; cut to 1,024 characters.

        Raises:
            AlreadyDecided: it is committed.
            CoordinatorUnavailable: it was not reached; the transaction rolls back at its deadline, unless its commit
                was asked for.
            Refused: the coordinator said no.
        """
        return _report(await self._settler().rollback(gtrid, reason, self._outcome_wait_s), Standing.ABORT)

    # -- parts -----------------------------------------------------------------------------------------------------

    def _settler(self) -> Settler:
        if self._settling is None:
            if self._calls is None:
                raise RuntimeError("the way to the coordinator is not open: async with handfast.connect(...) as tm")
            self._settling = self._settler_over(self._calls)
        return self._settling

    def _settler_over(self, calls: CallStream) -> Settler:
        told = (self._blocks.drop_block_of, self._remember_unknown)
        if self._trace is not None:
            return TracedSettler(self._trace, calls, self._clock, self._outcome_wait_s, *told)
        return Settler(calls, self._clock, self._outcome_wait_s, *told)

    def _remember_unknown(self, unknown: OutcomeUnknown) -> None:
        """Keep how many branches a transaction has whose outcome is going to be asked for."""
        self._unknown[unknown.gtrid] = unknown.branches
        if len(self._unknown) > UNKNOWN_KEPT_MAX:
            del self._unknown[next(iter(self._unknown))]

    async def _draw(self, timeout_s: float | None) -> TransactionContext:
        gtrid, default_s = await self._blocks.draw()
        return TransactionContext(gtrid, self._clock.monotonic_s() + (timeout_s or default_s or DEFAULT_TIMEOUT_S))

    async def _execute_once(self, request: wire.ExecuteRequest, timeout_s: float | None) -> Verdict:
        transaction = await self._draw(timeout_s)
        request.gtrid = transaction.gtrid
        request.timeout_ms = 0 if timeout_s is None else max(round(timeout_s * 1000), 1)
        return await self._settler().execute(request, transaction.deadline_monotonic_s)

    async def _fetch_block(self) -> wire.BeginResponse:
        try:
            answer = await self._settler().ask(self._begin, BEGIN_WAIT_S)
        except CallFailed as failure:
            raise no_answer(failure) from failure
        if not isinstance(answer, wire.BeginResponse) or answer.block.count < 1:
            raise CoordinatorUnavailable(f"The coordinator at {self._address} handed out no gtrids.")
        return answer


def _checked_timeout_s(timeout_s: float | None) -> float | None:
    if timeout_s is not None and not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise ValueError(f"a timeout is above 0 s and at most {TIMEOUT_S_MAX:.0f} s, not {timeout_s}")
    return timeout_s


def _report(verdict: Verdict, standing: Standing) -> OutcomeReport:
    return OutcomeReport(
        verdict.gtrid, standing, verdict.outcome, verdict.cause, verdict.reason, branches=verdict.branches
    )
