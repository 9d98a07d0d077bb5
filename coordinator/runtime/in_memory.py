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
from coordinator.runtime.running import Running

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

    ``single`` has those that had been kept by themselves, among them all that did not commit.

    Args:
        kept_max: how many are kept; of each kind, as those that were rows take a tenth of the room.
    """

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        self.single: OrderedDict[str, Running] = OrderedDict()
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
        running = self.single.get(gtrid)
        if running is None and (rows := self._rows.get(gtrid)) is not None:
            running = rows.shown(gtrid)
        return running

    def __setitem__(self, gtrid: str, running: Running) -> None:
        self.single[gtrid] = running
        if len(self.single) > self._kept_max:
            self.single.popitem(last=False)

    def __delitem__(self, gtrid: str) -> None:
        if self.single.pop(gtrid, None) is None:
            del self._rows[gtrid]

    def __contains__(self, gtrid: object) -> bool:
        return gtrid in self.single or gtrid in self._rows

    def __iter__(self) -> Iterator[str]:
        return chain(list(self.single), list(self._rows))

    def __len__(self) -> int:
        return len(self.single) + len(self._rows)

    def standings(self) -> Iterator[Standing]:
        """Where each stands."""
        return _standings(self.single, self._rows)


def _standings(single: Mapping[str, Running], rows: Mapping[str, Rows]) -> Iterator[Standing]:
    for gtrid, running in list(single.items()):
        yield gtrid, running.transaction.state, running.begun_unix_ms
    states = {kept: kept.states() for kept in set(rows.values())}
    for gtrid, kept in list(rows.items()):
        yield gtrid, states[kept][gtrid], kept.begun_unix_ms
