"""A wire: all that connects two processes, to be hurt as one.

Two processes may speak over two connections: a gRPC connection, and beside it one for the frames of its streams. Each
goes through a proxy of its own, for they lead to different ports. But a cable that is cut takes both with it; so
whatever is done to a wire is done to each of its proxies, one right after the other.

Calls are hurt first and healed last. Whoever finds the way for calls open then finds the one for frames open too: a
peer whose frames alone are lost is another fault, and may remember for a while that there was no getting through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chaos.toxiproxy.api import Proxy


@dataclass(frozen=True, slots=True)
class Wire:
    """The proxies between one process and another. Each method raises ProxyError, as those of a Proxy do.

    Args:
        calls: the way to the target's gRPC address, or to a database.
        frames: the way to the target's frame port; None when it has none.
    """

    calls: Proxy
    frames: Proxy | None = None

    def add_toxic(self, **settings: Any) -> None:
        """Add a toxic; see ``Proxy.add_toxic``."""
        for proxy in self:
            proxy.add_toxic(**settings)

    def destroy_toxic(self, toxic_name: str) -> None:
        """Take a toxic away."""
        for proxy in self._frames_first():
            proxy.destroy_toxic(toxic_name)

    def disable(self) -> None:
        """Drop all connections and refuse new ones."""
        for proxy in self:
            proxy.disable()

    def enable(self) -> None:
        """Accept connections again."""
        for proxy in self._frames_first():
            proxy.enable()

    def lead_past(self, next_wire: Wire) -> None:
        """Lead from now on to where the next wire leads, instead of into it. Drops all connections."""
        for proxy, skipped in zip(self._frames_first(), next_wire._frames_first(), strict=True):
            proxy.lead_to(skipped.upstream)

    def __iter__(self) -> Iterator[Proxy]:
        yield self.calls
        if self.frames is not None:
            yield self.frames

    def _frames_first(self) -> list[Proxy]:
        return [*self][::-1]
