"""Bank transfers with a fixed total: what the lab's clients do, singly or many at once, and what they know after.

Each transfer moves money between an account in one database and one in the other, so the sum over both never changes.
What to move is drawn from a seeded source; how long things take is not, so a seed repeats the load, not the run.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import grpc.aio
from google.protobuf.message import Message

import handfast
from chaos.history import Call, History, Status
from examples.bank.client import Bank
from examples.bank.v1 import accounts_pb2, ledger_pb2

Kind = Literal["pay", "refund", "pay at once", "refund at once"]
AT_ONCE: tuple[Kind, ...] = ("pay at once", "refund at once")
KINDS: tuple[Kind, ...] = ("pay", "refund", *AT_ONCE)

BURST = 8
"""How many transfers of one kind are asked for in one moment, now and then: enough to travel together as columns."""

TIMEOUT_S_DEFAULT = 5.0
_RESOLVE_S_MAX = 30.0
_ASK_AGAIN_S = 0.1
_AFTER_FAILURE_S = 0.02
_BETWEEN_BURSTS_S = 0.2


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money between a customer and a merchant.

    Args:
        kind: from whom to whom, and how it is sent.
        customer: the account in ``accounts``.
        merchant: the account in ``ledger``.
        cents: how much.
    """

    kind: Kind
    customer: int
    merchant: int
    cents: int


@dataclass(frozen=True, slots=True)
class Half:
    """What a transfer does in one database: as an RPC, or as an operation of a one-shot transaction."""

    resource: str
    operation: str
    request: Message


class Draws:
    """An endless series of transfers; the same seed gives the same series.

    Args:
        seed: of the series.
        accounts: accounts 1 to this are used.
        cents_max: the most that one transfer moves.
        kinds: which kinds to draw from.
    """

    def __init__(self, seed: int, *, accounts: int, cents_max: int = 20, kinds: tuple[Kind, ...] = KINDS) -> None:
        self._random = random.Random(seed)
        self._accounts = accounts
        self._cents_max = cents_max
        self._kinds = kinds

    def next(self) -> Transfer:
        """Draw one."""
        return self._drawn(self._random.choice(self._kinds))

    def burst(self, count: int) -> list[Transfer]:
        """Draw as many of one kind, each sent at once; as the rows of one frame they go through the coordinator."""
        kind = self._random.choice(AT_ONCE)
        return [self._drawn(kind) for _ in range(count)]

    def _drawn(self, kind: Kind) -> Transfer:
        draw = self._random
        customer, merchant = draw.randint(1, self._accounts), draw.randint(1, self._accounts)
        return Transfer(kind, customer, merchant, draw.randint(1, self._cents_max))


class Teller:
    """A client of the bank that writes down what it does.

    Args:
        addresses: of ``coordinator``, ``accounts`` and ``ledger``.
        history: where it writes.
        name: how the coordinator's reports call it.
        outcome_wait_s: how long past its deadline a transfer asks on for a lost outcome, in seconds.
    """

    def __init__(
        self, addresses: Mapping[str, str], history: History, *, name: str = "lab", outcome_wait_s: float = 5.0
    ) -> None:
        self.history = history
        self._name = name
        self._tm = handfast.connect(addresses["coordinator"], client=name, outcome_wait=outcome_wait_s)
        self._bank = Bank(self._tm, accounts=addresses["accounts"], ledger=addresses["ledger"])
        self._calls: dict[str, Callable[[Any], Awaitable[Message]]] = {
            "withdraw": self._bank.accounts.Withdraw,
            "deposit": self._bank.accounts.Deposit,
            "credit": self._bank.ledger.Credit,
            "debit": self._bank.ledger.Debit,
        }

    async def __aenter__(self) -> Self:
        await self._tm.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._bank.__aexit__(kind, problem, trace)
        await self._tm.__aexit__(kind, problem, trace)

    async def make(
        self,
        transfer: Transfer,
        *,
        timeout_s: float = TIMEOUT_S_DEFAULT,
        between_s: float = 0.0,
        hold_s: float = 0.0,
    ) -> Call:
        """Make one transfer.

        Args:
            transfer: which.
            timeout_s: how long its transaction may stay undecided, in seconds.
            between_s: how long an interactive one thinks between its two halves, in seconds.
            hold_s: how long it thinks before it asks for the commit, in seconds.

        Returns:
            What is known of it. Nothing that goes wrong is raised; it is in the call.
        """
        name = f"{self._name}-{len(self.history.calls)}"
        number = self.history.begin(transfer.kind, name, transfer.customer, transfer.merchant, transfer.cents)
        try:
            if transfer.kind in ("pay", "refund"):
                await self._interactive(number, name, transfer, timeout_s, (between_s, hold_s))
            else:
                await self._at_once(number, name, transfer, timeout_s)
        except asyncio.CancelledError:
            self.history.end(number, Status.INFO, "the client went away")
            raise
        except handfast.HandfastError as problem:
            self.history.name(number, getattr(problem, "gtrid", "") or self.history[number].gtrid)
            unknown = isinstance(problem, handfast.OutcomeUnknown | handfast.HeuristicOutcome)
            return self.history.end(number, Status.INFO if unknown else Status.FAIL, _first_line(problem))
        except grpc.aio.AioRpcError as problem:
            # A service said no, or was not reached: the block was left by an exception, so no commit was asked for.
            return self.history.end(number, Status.FAIL, f"{problem.code().name}: {problem.details()}")
        return self.history.end(number, Status.OK)

    async def burst(self, transfers: Iterable[Transfer], *, timeout_s: float = TIMEOUT_S_DEFAULT) -> list[Call]:
        """Make several transfers, all begun in one turn of the event loop: they leave in one frame, but for the
        first of them, which an idle client writes at once.

        Args:
            transfers: which.
            timeout_s: how long each transaction may stay undecided, in seconds.

        Returns:
            What is known of each; see ``make``.
        """
        return await asyncio.gather(*(self.make(transfer, timeout_s=timeout_s) for transfer in transfers))

    async def settle(self, number: int) -> Call:
        """Ask what became of a transfer whose outcome is unknown, until somebody knows or time runs out."""
        gtrid, loop = self.history[number].gtrid, asyncio.get_running_loop()
        give_up_s = loop.time() + _RESOLVE_S_MAX
        words = "nobody was asked"
        while loop.time() < give_up_s:
            try:
                report = await self._tm.outcome(gtrid)
            except handfast.HandfastError as problem:
                words = _first_line(problem)
            else:
                words = f"{report.standing}" + (f", {report.outcome}" if report.outcome else "")
                if report.standing is not handfast.Standing.UNDECIDED:
                    return self.history.resolve(number, _RESOLVED[report.standing], words)
            await asyncio.sleep(_ASK_AGAIN_S)
        return self.history.resolve(number, None, words)

    async def _interactive(
        self, number: int, name: str, transfer: Transfer, timeout_s: float, thinks_s: tuple[float, float]
    ) -> None:
        first, second = halves(transfer, name)
        async with self._tm.transaction(timeout=timeout_s) as txn:
            self.history.name(number, txn.gtrid)
            await self._calls[first.operation](first.request)
            await asyncio.sleep(thinks_s[0])
            await self._calls[second.operation](second.request)
            await asyncio.sleep(thinks_s[1])
            self.history.commit_asked(number)

    async def _at_once(self, number: int, name: str, transfer: Transfer, timeout_s: float) -> None:
        self.history.commit_asked(number)
        operations = [
            (half.resource, half.operation, half.request.SerializeToString()) for half in halves(transfer, name)
        ]
        result = await self._tm.execute(operations, timeout=timeout_s)
        self.history.name(number, result.gtrid)


def halves(transfer: Transfer, name: str) -> tuple[Half, Half]:
    """The two halves of a transfer: money leaves one account, then arrives at the other."""
    cents = transfer.cents
    customer = {"account": transfer.customer, "amount": cents}
    merchant = {"account": transfer.merchant, "amount": cents}
    if transfer.kind in ("pay", "pay at once"):
        return (
            Half("accounts", "withdraw", accounts_pb2.WithdrawRequest(**customer, transfer=name)),
            Half("ledger", "credit", ledger_pb2.CreditRequest(**merchant, transfer=name)),
        )
    return (
        Half("ledger", "debit", ledger_pb2.DebitRequest(**merchant, transfer=name)),
        Half("accounts", "deposit", accounts_pb2.DepositRequest(**customer, transfer=name)),
    )


async def run_load(
    teller: Teller,
    draws: Draws,
    *,
    seconds: float,
    concurrency: int = 4,
    timeout_s: float = TIMEOUT_S_DEFAULT,
    bursts: bool = True,
) -> None:
    """Make transfers for a while: some one after another, and beside them a burst every now and then.

    Args:
        teller: makes them.
        draws: says which.
        seconds: when to begin no more.
        concurrency: how many at once, bursts not counted.
        timeout_s: of each.
        bursts: whether there are any.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + seconds

    async def work() -> None:
        while loop.time() < until_s:
            call = await teller.make(draws.next(), timeout_s=timeout_s)
            if call.status is not Status.OK:
                await asyncio.sleep(_AFTER_FAILURE_S)  # do not spin against a service that is down

    async def work_in_bursts() -> None:
        while loop.time() < until_s:
            await teller.burst(draws.burst(BURST), timeout_s=timeout_s)
            await asyncio.sleep(_BETWEEN_BURSTS_S)

    async with asyncio.TaskGroup() as workers:
        for _ in range(concurrency):
            workers.create_task(work())
        if bursts:
            workers.create_task(work_in_bursts())


_RESOLVED = {
    handfast.Standing.COMMIT: Status.OK,
    handfast.Standing.ABORT: Status.FAIL,
    handfast.Standing.UNKNOWN: None,
}


def _first_line(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}".splitlines()[0]
