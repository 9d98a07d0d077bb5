"""Transaction names: handed out in blocks, each usable once.

A client draws names from its block without asking, so a transaction may be first heard of from a participant that
enlists. Two rules keep that safe. A name begins a transaction at most once: each block remembers which of its numbers
were claimed. And a name that somebody was told is aborted must never begin one: to answer so is to claim it.

Blocks die with the process. The next one has a greater epoch, so no old name can be claimed any more. And no name is
older than the life it is handed out in, whatever the clock says: by that, ``lives`` tells the lives of a log's copies
apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from coordinator.runtime.clock import Clock
from handfast.catalog import HandfastFault
from handfast.xid import Gtrid, base36

BLOCKS_PER_CLIENT_MAX = 20_000
"""A block takes some 300 bytes and one for each name, for its whole life. A client that draws 256 names at a time, as
ours does, begins 8,500 transactions a second with so many."""

OWN_BLOCK_SIZE = 1_024

NUMBER_LENGTH_MAX = 8
"""No block has more names than such a number can count."""

_spelled = lru_cache(4 * OWN_BLOCK_SIZE)(base36)
"""The numbers within a block: the same few for all of them."""


@lru_cache(4 * OWN_BLOCK_SIZE)
def _number_spelled(text: str) -> int:
    """The number within a block that is spelled so; -1 when none is."""
    try:
        number = int(text, 36) if len(text) <= NUMBER_LENGTH_MAX else -1
    except ValueError:
        return -1
    # A second spelling of a number ("02" for "2") would give it a second life.
    return number if number >= 0 and base36(number) == text else -1


@dataclass(slots=True)
class Block:
    """A run of names with a common prefix.

    Args:
        prefix: the names' common part.
        claimed: one byte per number, 1 when it was claimed.
        expires_s: from then on, by the clock's ``now_s``, none can be claimed.
        client: to whom it was handed out; empty when nobody said.
        handed_out: whether it counts among its client's; those that the coordinator draws from itself do not.
    """

    prefix: str
    claimed: bytearray
    expires_s: float
    client: str = ""
    handed_out: bool = True


class Gtrids:
    """Hands out names and knows which were used.

    Args:
        coordinator_id: this coordinator.
        epoch: its present life.
        clock: where time comes from.
        lifetime_s: for how long a block may be used.
        started_unix_ms: when the present life started, in milliseconds since 1970, as its log has it.
        blocks_per_client_max: how many blocks one client may hold; those without a name count as one.
    """

    def __init__(
        self,
        coordinator_id: str,
        epoch: int,
        clock: Clock,
        lifetime_s: float,
        started_unix_ms: int,
        blocks_per_client_max: int = BLOCKS_PER_CLIENT_MAX,
    ) -> None:
        self.coordinator_id = coordinator_id
        self.epoch = epoch
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._blocks: dict[str, Block] = {}
        self._blocks_per_client_max = blocks_per_client_max
        self._held: Counter[str] = Counter()
        self._last_time_ms = started_unix_ms
        self._own: Block | None = None
        self._own_next = 0

    def hand_out(self, count: int, client: str = "") -> Block:
        """Make a block of ``count`` names for a client; no two blocks share a prefix.

        Raises:
            HandfastFault: BLOCKS_TOO_MANY.
        """
        self._drop_expired()
        if self._held[client] >= self._blocks_per_client_max:
            raise HandfastFault("BLOCKS_TOO_MANY", client=client or "without a name", limit=self._blocks_per_client_max)
        self._held[client] += 1
        return self._make(count, client)

    def _make(self, count: int, client: str, *, handed_out: bool = True) -> Block:
        # The time doubles as the block's number: two blocks in one millisecond, or a clock that jumps back, must not
        # repeat it.
        self._last_time_ms = max(self._clock.unix_ms(), self._last_time_ms + 1)
        prefix = Gtrid(self.coordinator_id, self.epoch, self._last_time_ms, 0).prefix()
        block = Block(prefix, bytearray(count), self._clock.now_s() + self._lifetime_s, client, handed_out)
        self._blocks[prefix] = block
        return block

    def next(self) -> str:
        """Make and claim one name."""
        while True:
            block = self._own
            if block is None or self._own_next >= len(block.claimed) or self._clock.now_s() >= block.expires_s:
                self._drop_expired()
                block = self._own = self._make(OWN_BLOCK_SIZE, "", handed_out=False)
                self._own_next = 0
            number = self._own_next
            self._own_next += 1
            if not block.claimed[number]:  # nobody has guessed it, and used it up
                block.claimed[number] = 1
                return block.prefix + _spelled(number)

    def next_many(self, count: int) -> list[str]:
        """Make and claim so many names."""
        names: list[str] = []
        while len(names) < count:
            names.append(self.next())
            block, first = self._own, self._own_next
            if block is not None:
                claimed, prefix = block.claimed, block.prefix
                self._own_next = stop = min(first + count - len(names), len(claimed))
                free = [number for number in range(first, stop) if not claimed[number]]
                for number in free:
                    claimed[number] = 1
                names += [prefix + _spelled(number) for number in free]
        return names

    def claim(self, gtrid: str) -> bool:
        """Claim a name; False when it was claimed before or is of no live block."""
        found = self._unclaimed(gtrid)
        if found is None:
            return False
        block, index = found
        block.claimed[index] = 1
        return True

    def claim_rows(self, gtrids: Sequence[str], client: str) -> list[int]:
        """Claim those of many names that can be claimed and were handed out to this client; returns which."""
        claimed = []
        now_s = self._clock.now_s()
        block: Block | None = None
        prefix_before = ""
        for row, gtrid in enumerate(gtrids):
            prefix, hyphen, number = gtrid.rpartition("-")
            if prefix != prefix_before:
                prefix_before = prefix
                block = self._blocks.get(prefix + hyphen)
                if block is not None and (now_s >= block.expires_s or block.client != client):
                    block = None
            if block is None:
                continue
            index = _number_spelled(number)
            if 0 <= index < len(block.claimed) and not block.claimed[index]:
                block.claimed[index] = 1
                claimed.append(row)
        return claimed

    def client_of(self, gtrid: str) -> str:
        """To whom the name was handed out; empty when nobody said, or when its block is past its life."""
        block = self._blocks.get(gtrid[: gtrid.rfind("-") + 1])
        return block.client if block is not None else ""

    def is_claimable(self, gtrid: str) -> bool:
        """Whether ``claim`` would succeed."""
        return self._unclaimed(gtrid) is not None

    def _unclaimed(self, gtrid: str) -> tuple[Block, int] | None:
        prefix, hyphen, number = gtrid.rpartition("-")
        block = self._blocks.get(prefix + hyphen)
        if block is None or self._clock.now_s() >= block.expires_s:
            return None
        index = _number_spelled(number)
        if not 0 <= index < len(block.claimed) or block.claimed[index]:
            return None
        return block, index

    def is_ours(self, gtrid: str) -> bool:
        """Whether this coordinator made the name, in this life or an earlier one."""
        return gtrid.startswith(self.coordinator_id + "-")

    def _drop_expired(self) -> None:
        now_s = self._clock.now_s()
        # Blocks are in the order in which they expire.
        while self._blocks:
            oldest = next(iter(self._blocks.values()))
            if oldest.expires_s > now_s:
                return
            del self._blocks[oldest.prefix]
            if oldest.handed_out:
                self._held[oldest.client] -= 1
                if not self._held[oldest.client]:
                    del self._held[oldest.client]
