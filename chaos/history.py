"""Every call that a client made: when it began and ended, and what the client knows of it.

What a client knows is one of three things. OK: it committed. FAIL: certainly nothing changed. INFO: unknown, because
the answer was lost. A history that writes a lost answer down as a failure hides the very bugs one looks for; so an INFO
stays one, and what is learned by asking later is written beside it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace


class Status(enum.Enum):
    """What a client knows of its call."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Call:
    """One transfer, as its client saw it. Times are seconds since the run began.

    Args:
        number: its place in the history, from 0.
        kind: how it was made: ``pay``, ``refund``, ``pay at once``, ``refund at once``.
        transfer: its name in both journals.
        customer: the account in ``accounts``.
        merchant: the account in ``ledger``.
        cents: how much.
        start_s: when it began.
        gtrid: its transaction; empty while it has none.
        commit_s: when its commit was asked for; None when it never was.
        end_s: when the client had its answer, or gave up; None when it never did.
        status: what the client knew then.
        error: the error it got; empty when it got none.
        resolved: what it learned by asking later; None when it did not ask, or nobody knew.
        resolution: the answer to that question, in words.
    """

    number: int
    kind: str
    transfer: str
    customer: int
    merchant: int
    cents: int
    start_s: float
    gtrid: str = ""
    commit_s: float | None = None
    end_s: float | None = None
    status: Status = Status.INFO
    error: str = ""
    resolved: Status | None = None
    resolution: str = ""

    @property
    def known(self) -> Status:
        """What is known in the end."""
        return self.resolved or self.status


class History:
    """The calls of one run. Used by one event loop.

    Args:
        now_s: the run's clock.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._calls: list[Call] = []

    def begin(self, kind: str, transfer: str, customer: int, merchant: int, cents: int) -> int:
        """Record that a call begins now. Returns its number."""
        self._calls.append(Call(len(self._calls), kind, transfer, customer, merchant, cents, self._now_s()))
        return self._calls[-1].number

    def name(self, number: int, gtrid: str) -> None:
        """Record the call's transaction."""
        self._change(number, gtrid=gtrid)

    def commit_asked(self, number: int) -> None:
        """Record that its commit is asked for now."""
        self._change(number, commit_s=self._now_s())

    def end(self, number: int, status: Status, error: str = "") -> Call:
        """Record that its client has its answer now."""
        return self._change(number, end_s=self._now_s(), status=status, error=error)

    def resolve(self, number: int, status: Status | None, words: str) -> Call:
        """Record what was learned of an unknown outcome by asking. A status that the client had stays as it was."""
        return self._change(number, resolved=status, resolution=words)

    @property
    def calls(self) -> Sequence[Call]:
        """The calls, in the order of their beginnings."""
        return tuple(self._calls)

    def unresolved(self) -> Sequence[Call]:
        """The calls whose outcome is still unknown and can be asked for."""
        return tuple(call for call in self._calls if call.known is Status.INFO and call.gtrid)

    def __getitem__(self, number: int) -> Call:
        return self._calls[number]

    def _change(self, number: int, **fields: object) -> Call:
        self._calls[number] = replace(self._calls[number], **fields)  # type: ignore[arg-type]  # ** has one type only
        return self._calls[number]
