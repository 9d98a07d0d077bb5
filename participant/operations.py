"""The operations of a resource: work that is named, so that it can travel inside Prepare (one-shot transactions)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, TypeVar

from handfast.catalog import HandfastFault

ConnectionT = TypeVar("ConnectionT")

Work = Callable[[ConnectionT, bytes], Awaitable[bytes | None]]
"""Does an operation on a branch's connection; gets the payload, returns the result."""


class Operations(Generic[ConnectionT]):
    """The operations of one resource, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Work[ConnectionT]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._by_name))

    def add(self, name: str, work: Work[ConnectionT]) -> None:
        """Register an operation.

        Raises:
            ValueError: the name is empty, or taken.
        """
        if not name or name in self._by_name:
            raise ValueError(f"the operation name {name!r} is {'taken' if name else 'empty'}")
        self._by_name[name] = work

    def find(self, name: str, resource: str) -> Work[ConnectionT]:
        """The operation of this name.

        Raises:
            HandfastFault: OPERATION_UNKNOWN.
        """
        work = self._by_name.get(name)
        if work is None:
            known = ", ".join(self) or "none"
            raise HandfastFault("OPERATION_UNKNOWN", resource=resource, operation=name, known=known)
        return work
