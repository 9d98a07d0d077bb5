"""The exhaustive search of ``tests/unit/protocol``, for ``python -m tests.simulation``: every state, and how many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.protocol import transaction
from tests.unit.protocol.searching import LARGE, MODELS, RULES, WHOLE, Searched, Start, held_at_an_end, search, trap

STARTS = MODELS | WHOLE | LARGE


def search_all() -> Iterator[tuple[str, int, str]]:
    """Search every world whole.

    Yields:
        Its name, how many states can be reached in it, and what is wrong with one of them; empty when nothing is.
    """
    for name, start in STARTS.items():
        with _rollbacks_at_most(start.rollbacks_max):
            searched = search(start.world, start.moves)
        yield name, len(searched.worlds), _wrong(start, searched)


def _wrong(start: Start, searched: Searched) -> str:
    for name, rule in RULES.items():
        story = searched.broken(rule)
        if story is not None:
            return f"not so: {name}: {story}"
    if (story := held_at_an_end(searched)) is not None:
        return f"it ends, and somebody waits: {story}"
    if (story := trap(searched)) is not None:
        return f"no end can be reached from: {story}"
    if len(searched.worlds) != start.states:
        return f"there were {start.states} states when somebody last looked"
    return ""


@contextmanager
def _rollbacks_at_most(attempts: int) -> Iterator[None]:
    """Fewer attempts, fewer states; what happens at the last one is the same."""
    before = transaction.ROLLBACK_ATTEMPTS_MAX
    transaction.ROLLBACK_ATTEMPTS_MAX = attempts
    try:
        yield
    finally:
        transaction.ROLLBACK_ATTEMPTS_MAX = before
