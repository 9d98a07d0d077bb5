"""The demo's transfers: which there are, running them side by side, and what became of each.

A client call ends in one of three ways, as in Jepsen: committed, aborted for certain, or *unknown*. Unknown is kept
apart until the coordinator is asked; counting it as an abort would hide just the mistakes that one looks for.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import grpc
import grpc.aio

import handfast
from examples.bank.client import Bank, Payment, withdraw_request

AT_ONCE_MAX = 16
"""How many transfers are under way at the same time."""

NO_COORDINATOR = "coordinator not reached"

ASK_S_MAX = 20.0
ASK_AGAIN_S = 0.05

OVERDRAFT_EVERY = 25
NO_SUCH_ACCOUNT_EVERY = 50
CHANGE_OF_MIND_EVERY = 50


class Kind(Enum):
    """How a transfer is made."""

    PAY = "interactive"
    REFUND = "interactive, the other way"
    AT_ONCE = "one-shot"
    CHANGE_OF_MIND = "interactive, and the application fails half-way"


class Fate(Enum):
    """What the client knows about a transfer."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Transfer:
    """One transfer to make."""

    kind: Kind
    payment: Payment


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a transfer.

    Args:
        transfer: which.
        fate: what the client knows.
        gtrid: its transaction; empty when the client was told none.
        reason: why it was aborted.
        branches: how many branches the client knows of, when the outcome is unknown.
        asked: whether it was unknown at first, and the coordinator was asked.
    """

    transfer: Transfer
    fate: Fate
    gtrid: str = ""
    reason: str = ""
    branches: int = 0
    asked: bool = False


class ChangedItsMind(Exception):
    """The application fails between two calls, as applications do."""


def plan(count: int, *, accounts: int, balance: int, seed: int) -> list[Transfer]:
    """Choose transfers: half of them interactive, half one-shot, and some that must be refused.

    No two use the same two accounts, so that they can't deadlock across the databases: the lab shows that apart.

    Args:
        count: how many; at most ``accounts`` squared.
        accounts: how many accounts each database holds.
        balance: what each of them holds, in cents.
        seed: the same seed gives the same transfers.
    """
    chance = random.Random(seed)
    pairs = chance.sample(range(accounts * accounts), count)
    return [_transfer(number, divmod(pair, accounts), balance, chance) for number, pair in enumerate(pairs)]


def _transfer(number: int, pair: tuple[int, int], balance: int, chance: random.Random) -> Transfer:
    customer, merchant = pair[0] + 1, pair[1] + 1
    kind = (Kind.AT_ONCE, Kind.PAY, Kind.AT_ONCE, Kind.REFUND)[number % 4]
    cents = chance.randint(1, max(1, balance // 50))
    if number % OVERDRAFT_EVERY == 7:
        cents = 1000 * balance
    elif number % NO_SUCH_ACCOUNT_EVERY == 18:
        merchant = -merchant
    elif number % CHANGE_OF_MIND_EVERY == 41:
        kind = Kind.CHANGE_OF_MIND
    return Transfer(kind, Payment(f"transfer-{number:05}", customer, merchant, cents))


class Workload:
    """Makes transfers, some at a time, and keeps what became of each.

    Args:
        bank: the bank.
        transfers: what to make, in this order.
    """

    def __init__(self, bank: Bank, transfers: Sequence[Transfer]) -> None:
        self.total = len(transfers)
        self.results: list[Result] = []
        self.in_flight = 0
        self._bank = bank
        self._waiting = list(reversed(transfers))
        self._paused = False

    @property
    def done(self) -> int:
        """How many transfers have ended, or are unknown."""
        return len(self.results)

    def has_done(self, count: int) -> bool:
        """Whether so many have ended, or all."""
        return self.done >= min(count, self.total)

    def count(self, fate: Fate) -> int:
        """How many ended so."""
        return sum(result.fate is fate for result in self.results)

    def aborts(self) -> Counter[str]:
        """How many were aborted for each reason."""
        return Counter(result.reason for result in self.results if result.fate is Fate.ABORTED)

    def pause(self) -> None:
        """Begin no more transfers. Those under way go on."""
        self._paused = True

    async def run(self, *, pause_at_trouble: bool = False) -> None:
        """Make transfers until none is left, or until paused; returns when none is under way any more.

        Args:
            pause_at_trouble: pause as soon as a transfer shows that the coordinator is gone, as a wise application
                would; the others would only fail one after another.
        """
        self._paused = False
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE_MAX):
                group.create_task(self._work(pause_at_trouble))

    async def _work(self, pause_at_trouble: bool) -> None:
        while self._waiting and not self._paused:
            transfer = self._waiting.pop()
            self.in_flight += 1
            try:
                result = await make(self._bank, transfer)
            finally:
                self.in_flight -= 1
            self.results.append(result)
            self._paused |= pause_at_trouble and (result.fate is Fate.UNKNOWN or result.reason == NO_COORDINATOR)

    async def ask(self, tm: handfast.TransactionManager) -> int:
        """Ask the coordinator what became of every transfer whose outcome is unknown.

        Returns:
            How many are known now.

        Raises:
            handfast.HandfastError: the coordinator did not answer.
        """
        unknown = [position for position, result in enumerate(self.results) if result.fate is Fate.UNKNOWN]
        for position in unknown:
            self.results[position] = await _asked(tm, self.results[position])
        return sum(self.results[position].fate is not Fate.UNKNOWN for position in unknown)


async def make(bank: Bank, transfer: Transfer) -> Result:
    """Make one transfer, and tell what the client knows afterwards."""
    try:
        gtrid = await _make(bank, transfer)
    except handfast.OutcomeUnknown as unknown:
        return Result(transfer, Fate.UNKNOWN, unknown.gtrid, branches=unknown.branches)
    except handfast.HeuristicOutcome as heuristic:
        return Result(transfer, Fate.UNKNOWN, heuristic.gtrid, reason=str(heuristic))
    except handfast.TransactionAborted as aborted:
        return Result(transfer, Fate.ABORTED, aborted.gtrid, reason=why_aborted(aborted))
    except handfast.CoordinatorUnavailable as problem:
        return Result(transfer, Fate.ABORTED, problem.gtrid, reason=NO_COORDINATOR)
    except handfast.Refused as problem:
        return Result(transfer, Fate.ABORTED, problem.gtrid, reason=problem.code)
    except grpc.aio.AioRpcError as refusal:
        # Raised inside the transaction's block, which therefore never asked for a commit.
        return Result(transfer, Fate.ABORTED, reason=why_refused(refusal))
    except ChangedItsMind:
        return Result(transfer, Fate.ABORTED, reason="the application failed half-way")
    return Result(transfer, Fate.COMMITTED, gtrid)


async def _make(bank: Bank, transfer: Transfer) -> str:
    match transfer.kind:
        case Kind.PAY:
            return await bank.pay(transfer.payment)
        case Kind.REFUND:
            return await bank.refund(transfer.payment)
        case Kind.AT_ONCE:
            return await bank.pay_at_once(transfer.payment)
        case Kind.CHANGE_OF_MIND:
            async with bank.tm.transaction(timeout=bank.timeout):
                await bank.accounts.Withdraw(withdraw_request(transfer.payment))
                raise ChangedItsMind


async def _asked(tm: handfast.TransactionManager, result: Result) -> Result:
    fate = await fate_of(tm, result.gtrid, result.branches)
    reason = "coordinator died before it decided" if fate is Fate.ABORTED else ""
    return Result(result.transfer, fate, result.gtrid, reason, asked=True)


async def fate_of(tm: handfast.TransactionManager, gtrid: str, branches: int) -> Fate:
    """Ask what became of a transaction, until it is decided, or nobody can tell.

    Raises:
        TimeoutError: nobody answers.
    """
    async with asyncio.timeout(ASK_S_MAX):
        while True:
            try:
                report = await tm.outcome(gtrid, branches=branches)
            except handfast.CoordinatorUnavailable:
                await asyncio.sleep(ASK_AGAIN_S)  # it is back, but our connection does not know yet
                continue
            if report.standing is not handfast.Standing.UNDECIDED:
                return _FATE_BY_OUTCOME.get(report.outcome, Fate.UNKNOWN)
            await asyncio.sleep(report.retry_after_s)


_FATE_BY_OUTCOME: dict[handfast.Outcome | None, Fate] = {
    handfast.Outcome.COMMITTED: Fate.COMMITTED,
    handfast.Outcome.ABORTED: Fate.ABORTED,
}
_REASON_BY_STATUS = {
    grpc.StatusCode.FAILED_PRECONDITION: "insufficient funds",
    grpc.StatusCode.NOT_FOUND: "no such account",
    grpc.StatusCode.UNAVAILABLE: "service not reached",
    grpc.StatusCode.DEADLINE_EXCEEDED: "out of time",
}
_REASON_BY_CAUSE = {
    handfast.AbortCause.DEADLINE: "out of time",
    handfast.AbortCause.UNREACHABLE: "participant died before it voted",
    handfast.AbortCause.PRESUMED: "coordinator died before it decided",
}


def why_refused(refusal: grpc.aio.AioRpcError) -> str:
    """A service's status in the summary's words."""
    if "could not be enlisted" in (refusal.details() or ""):
        return NO_COORDINATOR
    return _REASON_BY_STATUS.get(refusal.code(), refusal.details() or refusal.code().name)


def why_aborted(aborted: handfast.TransactionAborted) -> str:
    """An abort in the summary's words."""
    if "holds less" in aborted.reason:
        return "insufficient funds"
    if "no account" in aborted.reason:
        return "no such account"
    if aborted.reason_code == "VOTE_LOST":
        return _REASON_BY_CAUSE[handfast.AbortCause.UNREACHABLE]
    known = _REASON_BY_CAUSE.get(aborted.cause) if aborted.cause else None
    return known or aborted.reason_code or aborted.reason
