"""The ambient transaction, and how it travels in the metadata of a call.

Inside ``async with tm.transaction()`` the transaction is *ambient*: a context variable holds it, so every call made
there, and in tasks started there, belongs to it. On the wire it is two metadata keys:

    handfast-gtrid        the transaction
    handfast-timeout-ms   the time left to it, in milliseconds

The time is relative, as in gRPC's own ``grpc-timeout``, because two machines' clocks need not agree. Each hop turns it
into a deadline by its own clock, and back into what is left when it calls on; time in flight is given away, so that a
callee may think that it has a little more time than it has, and the coordinator's own deadline is the one that binds.

Back comes, in the trailing metadata of the answer, ``handfast-branches``: the branches that joined in that call, and in
the calls it made. So the application learns how many branches its transaction has. It tells the coordinator so, because
after a restart only that makes the absence of a commit record a proof of abort: a transaction of one branch commits
without one. A branch that nobody told of makes the count too small, which costs an answer; it is never too large.

This module imports the standard library and handfast.catalog, .clock, .values and .xid only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import field

from handfast import clock
from handfast.catalog import HandfastFault
from handfast.values import value
from handfast.xid import is_gtrid

GTRID_KEY = "handfast-gtrid"
TIMEOUT_KEY = "handfast-timeout-ms"
BRANCHES_KEY = "handfast-branches"
TIMEOUT_MS_MAX = 2**32 - 1
"""What a uint32 holds; some fifty days."""
_TIMEOUT_DIGITS_MAX = len(str(TIMEOUT_MS_MAX))

MetadataPairs = Iterable[tuple[str, str | bytes]]


@value
class TransactionContext:
    """A transaction, as those who work in it need to know it.

    Args:
        gtrid: its id.
        deadline_monotonic_s: when it must be decided, on this process's monotonic clock; ``math.inf`` when its maker
            left that to the coordinator.
        branches: the branches that are known here to have joined, by bqual; grows.
    """

    gtrid: str
    deadline_monotonic_s: float
    branches: set[str] = field(default_factory=set, compare=False, repr=False)

    def time_left_s(self, *, now_s: float | None = None) -> float:
        """Seconds to the deadline; below 0 when it has passed, ``math.inf`` when there is none."""
        return self.deadline_monotonic_s - (clock.monotonic_s() if now_s is None else now_s)

    def timeout_ms(self, *, now_s: float | None = None) -> int:
        """The time left as the wire has it: at least 1, because 0 there means the coordinator's default, which is
        also the answer when there is no deadline."""
        left_s = self.time_left_s(now_s=now_s)
        if math.isinf(left_s):
            return 0
        return min(max(math.floor(left_s * 1000), 1), TIMEOUT_MS_MAX)


_ambient: ContextVar[TransactionContext | None] = ContextVar("handfast_transaction", default=None)


def current() -> TransactionContext | None:
    """The ambient transaction; None outside any."""
    return _ambient.get()


def set_current(context: TransactionContext | None) -> TransactionContext | None:
    """Make a transaction ambient from here on, or none; returns what was ambient before."""
    before = _ambient.get()
    _ambient.set(context)
    return before


@contextmanager
def within(context: TransactionContext | None) -> Iterator[None]:
    """Make a transaction ambient for a block; None takes the block out of any transaction."""
    before = set_current(context)
    try:
        yield
    finally:
        set_current(before)


def to_metadata(context: TransactionContext, *, now_s: float | None = None) -> tuple[tuple[str, str], ...]:
    """What a call carries so that the callee can join the transaction.

    Args:
        context: the transaction.
        now_s: the monotonic clock's reading; None reads it.
    """
    timeout_ms = context.timeout_ms(now_s=now_s)
    gtrid = (GTRID_KEY, context.gtrid)
    return (gtrid, (TIMEOUT_KEY, str(timeout_ms))) if timeout_ms else (gtrid,)


def from_metadata(metadata: MetadataPairs | None, *, now_s: float | None = None) -> TransactionContext | None:
    """The transaction that a call carries; None when it carries none.

    Args:
        metadata: as ``ServicerContext.invocation_metadata()`` returns it.
        now_s: the monotonic clock's reading; None reads it.

    Raises:
        HandfastFault: GTRID_MALFORMED, or FIELD_INVALID when the time left is no number of milliseconds.
    """
    gtrid, timeout = None, "0"
    for key, said in metadata or ():
        if key == GTRID_KEY:
            gtrid = _text(said)
        elif key == TIMEOUT_KEY:
            timeout = _text(said)
    if gtrid is None:
        return None
    if not is_gtrid(gtrid):
        raise HandfastFault("GTRID_MALFORMED", text=gtrid[:80])
    timeout_ms = _timeout_ms(timeout)
    if timeout_ms == 0:
        return TransactionContext(gtrid, math.inf)
    return TransactionContext(gtrid, (clock.monotonic_s() if now_s is None else now_s) + timeout_ms / 1000)


def joined_to_metadata(context: TransactionContext) -> tuple[tuple[str, str], ...]:
    """What an answer carries back: the branches that joined; nothing when none did."""
    return ((BRANCHES_KEY, ",".join(sorted(context.branches))),) if context.branches else ()


def learn_joined(context: TransactionContext, metadata: MetadataPairs | None) -> None:
    """Take note of the branches that an answer's trailing metadata names."""
    for key, said in metadata or ():
        if key == BRANCHES_KEY:
            context.branches.update(_text(said).split(","))
            context.branches.discard("")


def _text(said: str | bytes) -> str:
    return said if isinstance(said, str) else said.decode("ascii", "replace")


def _timeout_ms(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _TIMEOUT_DIGITS_MAX):
        problem = f"{text[:40]!r} is not a number of milliseconds"
        raise HandfastFault("FIELD_INVALID", field=TIMEOUT_KEY, problem=problem)
    return min(int(text), TIMEOUT_MS_MAX)
