"""The coordinator's time, and who may have how much of it.

One thread of one process does everything, so whoever keeps it busy keeps it from all others: eight streams of
questions about nothing are enough to starve a client that has work to do. A limit on messages a second does not help,
for an honest client sends as many, and messages differ a hundredfold in what they cost.

So each caller has an account of the time that handling its frames and calls has taken. As long as nobody else has
asked for anything of late, it may take all there is. When others have, it may take ``share_max`` of each second: what
it has used up beyond that (a *debt*) it waits out before its next frame is read. Nothing is refused for it, and nothing
gathers in memory: a frame that is not read stays with its sender, by the flow control of HTTP/2.

What is charged is only what the caller's own messages cost on arrival and on the way back: reading, refusing,
answering. The work of a transaction that goes on between, its votes, forces and acknowledgements, is not. And what its
messages cost is given back when it commits: a coordinator is there for that. So a client who commits is not held up,
however much it commits beside others, and one who only asks is.

A leaky bucket with a decaying sum beside it, both brought up to date when they are looked at: no timer.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence

from coordinator.runtime.clock import Clock

logger = logging.getLogger(__name__)

BURST_S = 0.05
"""What a caller may use at once, after a pause, in seconds of the coordinator's time."""

DEBT_S_MAX = 0.5
"""What it can owe at most, in seconds: one frame must not shut its sender out for minutes."""

MEMORY_S = 1.0
"""How fast it is forgotten what somebody used, in seconds: it falls to a third in this time."""

OTHERS_S_MIN = 1e-3
"""From how much use on, by all others together, time is scarce: a few calls a second."""

ACCOUNTS_MAX = 1_024
"""Past this, accounts that nobody has used of late are closed."""

FRAME_S = 90e-6
"""What gRPC takes to read or write a frame, in seconds, measured; it can't be seen from outside.
Charged as well when frames travel beside gRPC, where they cost a fraction of it: whoever commits gets it back."""

CALL_S = 2e-6
"""The same for parsing one call, or building one reply."""

BYTE_S = 5e-9
"""The same for each byte of a frame."""

UNARY_S = 400e-6
"""The same for a whole unary call, or for opening a stream."""

REFUSED_S = 800e-6
"""What is charged besides when such a call is refused: more than it costs, for who goes on being refused has no use of
the answer."""

BROKEN_S = 20e-3
"""What is charged for a stream that was broken by something that is no frame. No peer of ours ever sends one."""

EARNED_S = 300e-6
"""What a committed transaction earns its client: about what its messages cost when each of them comes alone."""

EARNED_UNARY_S = 2 * UNARY_S + 200e-6
"""The same for one that is begun and committed by unary calls."""

EARNED_BRANCH_S = 60e-6
"""What each of its branches adds to that, for to begin with them is done when the message comes."""

EARNING_BRANCHES_MAX = 64
"""More of them add nothing: how many there are, a client may say."""

LOOK_AGAIN_S = 0.01
"""How long somebody waits before it is looked whether less is owed by now, in seconds."""

TELL_AGAIN_S = 60.0

PAID_MAX = 8_192
"""Of how many transactions it is remembered that they were paid for, and of half as many at least; more than can be
waited for on a stream."""

EXPIRY_S = 100e-6
"""The same for a transaction that is begun and left alone: to hold it, and to end it when its time is over. Who draws
names in blocks, as our client does, never begins one without a use for it."""


class _Decaying:
    """A sum that fades."""

    __slots__ = ("_as_of_s", "_sum_s")

    def __init__(self) -> None:
        self._sum_s = self._as_of_s = 0.0

    def at(self, now_s: float) -> float:
        return self._sum_s * math.exp((self._as_of_s - now_s) / MEMORY_S)

    def add(self, seconds: float, now_s: float) -> None:
        self._sum_s = self._sum_s * math.exp((self._as_of_s - now_s) / MEMORY_S) + seconds
        self._as_of_s = now_s


class Account:
    """What one caller has used; made by ``Shares.account``.

    Args:
        shares: whose account it is.
        caller: whose time it counts, for the log.
    """

    __slots__ = (
        "_balance_s",
        "_caller",
        "_earned_s",
        "_filled_s",
        "_paid",
        "_paid_before",
        "_queue",
        "_shares",
        "_told_s",
        "used",
    )

    def __init__(self, shares: Shares, caller: str) -> None:
        self._shares = shares
        self._caller = caller
        self._told_s = -math.inf  # when the log was last told that it has to wait
        self._balance_s = BURST_S
        self._earned_s = 0.0  # since the balance was brought up to date
        self._filled_s = shares.clock.now_s()
        self._paid: set[str] = set()  # the transactions that have earned something of late
        self._paid_before: set[str] = set()  # and those before them
        self._queue = asyncio.Lock()  # fair: who came first goes on first
        self.used = _Decaying()

    def charge(self, seconds: float) -> None:
        """Take what something cost, in seconds of the coordinator's time."""
        # Three times for each transaction that comes alone, so this calls nobody that it can do without.
        shares = self._shares
        now_s = shares.clock.now_s()
        balance_s = self._balance_s + self._earned_s + (now_s - self._filled_s) * shares.share_max
        self._balance_s = max(min(balance_s, BURST_S) - seconds, -DEBT_S_MAX)
        self._earned_s = 0.0
        self._filled_s = now_s
        self.used.add(seconds, now_s)
        shares.used.add(seconds, now_s)

    def earn(self, gtrid: str, seconds: float) -> None:
        """Give back what a transaction's messages cost, because it committed; once, however often that is told."""
        paid = self._paid
        if gtrid in paid or gtrid in self._paid_before:
            return
        self._room_for_paid().add(gtrid)
        self._earned_s += seconds

    def earn_all(self, gtrids: Sequence[str], each_s: float) -> None:
        """The same for many transactions."""
        paid = self._room_for_paid()
        unpaid = set(gtrids).difference(paid, self._paid_before)
        paid |= unpaid
        self._earned_s += each_s * len(unpaid)

    def _room_for_paid(self) -> set[str]:
        if len(self._paid) >= PAID_MAX // 2:
            self._paid_before = self._paid
            self._paid = set()
        return self._paid

    def wait_s(self) -> float:
        """How long the caller's next message has to wait, in seconds; 0 when it need not."""
        shares = self._shares
        now_s = shares.clock.now_s()
        owed_s = -self._balance_at(now_s)
        return owed_s / shares.share_max if owed_s > 0.0 and self._others_want_time(now_s) else 0.0

    @property
    def nearly_used_up(self) -> bool:
        """Whether the caller has had most of its share, while others want some."""
        now_s = self._shares.clock.now_s()
        return self._balance_at(now_s) < BURST_S / 2 and self._others_want_time(now_s)

    def _balance_at(self, now_s: float) -> float:
        filled_s = (now_s - self._filled_s) * self._shares.share_max
        return min(self._balance_s + self._earned_s + filled_s, BURST_S)

    def _others_want_time(self, now_s: float) -> bool:
        return self._shares.used.at(now_s) - self.used.at(now_s) >= OTHERS_S_MIN

    async def admitted(self) -> None:
        """Return when the caller's next message may be handled, at once as a rule."""
        # What it had when it was last charged can only have become more.
        if not self._queue.locked() and (self._balance_s >= 0.0 or self.wait_s() <= 0.0):
            return
        self._tell()
        async with self._queue:
            while (wait_s := self.wait_s()) > 0.0:
                await self._shares.clock.sleep(min(wait_s, LOOK_AGAIN_S))

    def _tell(self) -> None:
        """Say that somebody is held up, for it shows nowhere else why it is slow; not more than once a minute."""
        now_s = self._shares.clock.now_s()
        if now_s - self._told_s >= TELL_AGAIN_S:
            self._told_s = now_s
            logger.warning(
                "%s asks for more than its share of the coordinator's time, and waits while others want some "
                "(share_max is %g; transactions that commit don't count)",
                self._caller,
                self._shares.share_max,
            )


class Shares:
    """All accounts.

    Args:
        clock: where time comes from.
        share_max: the share of each second that one caller may have while others want some, above 0 and at most 1.
    """

    def __init__(self, clock: Clock, share_max: float) -> None:
        self.clock = clock
        self.share_max = share_max
        self.used = _Decaying()
        self._accounts: dict[str, Account] = {}

    def account(self, caller: str) -> Account:
        """The account of a caller, opened when there is none."""
        account = self._accounts.get(caller)
        if account is None:
            if len(self._accounts) >= ACCOUNTS_MAX:
                self._close_unused()
            account = self._accounts[caller] = Account(self, caller)
        return account

    def _close_unused(self) -> None:
        """Whoever holds one goes on with it; a caller that comes back starts with nothing owed."""
        now_s = self.clock.now_s()
        self._accounts = {who: one for who, one in self._accounts.items() if one.used.at(now_s) >= OTHERS_S_MIN}
