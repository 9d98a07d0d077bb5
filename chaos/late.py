"""A network that delivers late: what was sent on an old connection arrives after what is sent on a new one.

TCP keeps the order of one connection and promises nothing between two. To show that, a link is built of two wires in
a row (``Scenario.late_links``):

    source ──→ wire ──→ late wire ──→ target       HeldUp: the late wire keeps what travels to the target
                 ╰─────────────────────↗           Rerouted: connections drop, and new ones go past the late wire

``HeldUp`` healed: what was kept arrives at last, on a connection that the source gave up long ago.
"""

from __future__ import annotations

from dataclasses import dataclass

from chaos.faults import Reach

_HELD_MS = 3_600_000
_CLOSES_AFTER_MS = 10_000
"""For so long the late wire keeps the target's side open after its source has gone: bytes that arrive together with
the connection's end may be thrown away unread."""


def late(target: str) -> str:
    """The name of the late wire of a link to a target."""
    return f"{target}, late"


@dataclass(frozen=True, slots=True)
class HeldUp:
    """What travels to the target stays in the network; healed: it arrives. Acts on the open connections of a late link
    until they drop."""

    source: str
    target: str

    @property
    def label(self) -> str:
        return f"late {self.source} → {self.target}"

    @property
    def words(self) -> str:
        return f"What is sent on the open connections of {self.source} → {self.target} is kept, to arrive late."

    @property
    def lanes(self) -> tuple[str, ...]:
        return self.source, self.target

    def start(self, reach: Reach) -> None:
        wire = reach.wire(self.source, late(self.target))
        wire.add_toxic(type="latency", stream="upstream", attributes={"latency": _HELD_MS})
        wire.add_toxic(type="slow_close", stream="upstream", attributes={"delay": _CLOSES_AFTER_MS})

    def heal(self, reach: Reach) -> None:
        reach.wire(self.source, late(self.target)).destroy_toxic("latency_upstream")


@dataclass(frozen=True, slots=True)
class Rerouted:
    """The connections of a late link drop, and new ones go past the late wire; there is no way back."""

    source: str
    target: str

    @property
    def label(self) -> str:
        return f"{self.source} → {self.target} rerouted"

    @property
    def words(self) -> str:
        return f"The connections {self.source} → {self.target} drop; new ones take a way that is not late."

    @property
    def lanes(self) -> tuple[str, ...]:
        return self.source, self.target

    def start(self, reach: Reach) -> None:
        reach.wire(self.source, self.target).lead_past(reach.wire(self.source, late(self.target)))

    def heal(self, reach: Reach) -> None:
        """Nothing: it is over once it has happened."""
