"""The transactions in memory, by name, however they are kept.

Most are kept one by one (``Running``), those that go the common way as rows of cohorts (``running_cohort``). Nobody
else need know: to ask for one that is a row takes it out of its cohort, and gives what it would have been all along.
Whether a name is there, how many there are, and where each stands can be asked without that.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from itertools import chain
from typing import Protocol

from coordinator.protocol.states import TransactionState
from coordinator.runtime.folded import folded, standing_of, unfolded
from coordinator.runtime.running import Running

FOLDED_TOGETHER = 32
"""How many that have ended are folded in one go. The next transaction may wait for it, 0.1 ms; to fold each by itself
took three times as long, for by then the processor has gone through all of a transaction since."""

Standing = tuple[str, TransactionState, int]
"""A transaction's name, where it stands, and when it began, in milliseconds since 1970."""


class Rows(Protocol):
    """Transactions that are kept together."""

    @property
    def begun_unix_ms(self) -> int:
        """When they began, in milliseconds since 1970."""

    def states(self) -> Mapping[str, TransactionState]:
        """Where each of them stands; of one that was taken out, nothing that is true."""

    def taken_out(self, gtrid: str) -> Running:
        """Take one out, to be kept by itself from now on."""

    def shown(self, gtrid: str) -> Running:
        """Show one that has ended, as it would be if it had been kept by itself."""


class Transactions(MutableMapping[str, Running]):
    """Those that have not ended.

    ``single`` has those that are kept by themselves, ``rows`` the others.
    """

    def __init__(self) -> None:
        self.single: dict[str, Running] = {}
        self.rows: dict[str, Rows] = {}

    def __getitem__(self, gtrid: str) -> Running:
        """One of them; a row is taken out for it."""
        running = self.find(gtrid)
        if running is None:
            raise KeyError(gtrid)
        return running

    def find(self, gtrid: str) -> Running | None:
        """``get``, of which most askers learn that it is not there: what a Mapping says by an exception inside."""
        running = self.single.get(gtrid)
        if running is None and (rows := self.rows.get(gtrid)) is not None:
            running = rows.taken_out(gtrid)
        return running

    def __setitem__(self, gtrid: str, running: Running) -> None:
        self.single[gtrid] = running

    def __delitem__(self, gtrid: str) -> None:
        del self.single[gtrid]

    def __contains__(self, gtrid: object) -> bool:
        return gtrid in self.single or gtrid in self.rows

    def __iter__(self) -> Iterator[str]:
        return iter([*self.single, *self.rows])

    def __len__(self) -> int:
        return len(self.single) + len(self.rows)

    def standings(self) -> Iterator[Standing]:
        """Where each stands."""
        return _standings(self.single, self.rows)


class Finished(MutableMapping[str, Running]):
    """The last ones that have ended.

    Those that had been kept by themselves, among them all that did not commit, are folded, but for the last few and
    those that ``folded`` leaves as they are.

    Args:
        kept_max: how many are kept; of each kind, as those that were rows take a tenth of the room.
    """

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        self._single: OrderedDict[str, Running | bytes] = OrderedDict()
        self._whole: list[str] = []  # which of them have not been folded, but will be
        self._rows: dict[str, Rows] = {}
        self._order: deque[Sequence[str]] = deque()  # of the rows, as they ended

    def keep_rows(self, gtrids: Sequence[str], rows: Rows) -> None:
        """Keep some that have just ended as rows."""
        self._rows.update(dict.fromkeys(gtrids, rows))
        self._order.append(gtrids)
        while len(self._rows) > self._kept_max and len(self._order) > 1:
            for gtrid in self._order.popleft():
                self._rows.pop(gtrid, None)

    def __getitem__(self, gtrid: str) -> Running:
        running = self.find(gtrid)
        if running is None:
            raise KeyError(gtrid)
        return running

    def find(self, gtrid: str) -> Running | None:
        """``get``, as of ``Transactions``."""
        one = self._single.get(gtrid)
        if one is not None:
            return unfolded(gtrid, one) if isinstance(one, bytes) else one
        rows = self._rows.get(gtrid)
        return rows.shown(gtrid) if rows is not None else None

    def __setitem__(self, gtrid: str, running: Running) -> None:
        self._single[gtrid] = running
        if len(self._single) > self._kept_max:
            self._single.popitem(last=False)
        self._whole.append(gtrid)
        if len(self._whole) >= FOLDED_TOGETHER:
            self._fold()

    def _fold(self) -> None:
        for gtrid in self._whole:
            one = self._single.get(gtrid)
            if isinstance(one, Running):
                self._single[gtrid] = folded(one) or one
        self._whole.clear()

    def __delitem__(self, gtrid: str) -> None:
        if self._single.pop(gtrid, None) is None:
            del self._rows[gtrid]

    def __contains__(self, gtrid: object) -> bool:
        return gtrid in self._single or gtrid in self._rows

    def __iter__(self) -> Iterator[str]:
        return chain(list(self._single), list(self._rows))

    def __len__(self) -> int:
        return len(self._single) + len(self._rows)

    def standings(self) -> Iterator[Standing]:
        """Where each stands."""
        return _standings(self._single, self._rows)

    def aborted(self) -> Iterator[Running]:
        """Those that did not commit: none of them is a row."""
        for gtrid, one in list(self._single.items()):
            state = standing_of(one)[0] if isinstance(one, bytes) else one.transaction.state
            if state is not TransactionState.COMMITTED:
                yield unfolded(gtrid, one) if isinstance(one, bytes) else one


def _standings(single: Mapping[str, Running | bytes], rows: Mapping[str, Rows]) -> Iterator[Standing]:
    for gtrid, one in list(single.items()):
        if isinstance(one, bytes):
            yield gtrid, *standing_of(one)
        else:
            yield gtrid, one.transaction.state, one.begun_unix_ms
    states = {kept: kept.states() for kept in set(rows.values())}
    for gtrid, kept in list(rows.items()):
        yield gtrid, states[kept][gtrid], kept.begun_unix_ms
