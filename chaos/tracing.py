"""Traces of a lab's run: who writes them, and what they break (docs/trace.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.trace_check import check
from chaos.trace_lines import read
from chaos.trace_rules import AT_REST
from handfast.trace import ENVIRONMENT_VARIABLE

TRACE_FILE = "trace.jsonl"


@contextmanager
def traced_to(path: Path | None) -> Iterator[Path | None]:
    """Have this process, and every process that it starts meanwhile, append its protocol events to a file.

    Args:
        path: which; None changes nothing.
    """
    if path is None:
        yield None
        return
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    os.environ[ENVIRONMENT_VARIABLE] = str(path)
    try:
        yield path
    finally:
        if before is None:
            del os.environ[ENVIRONMENT_VARIABLE]
        else:
            os.environ[ENVIRONMENT_VARIABLE] = before


def is_at_rest(path: Path) -> bool:
    """Whether nothing is unfinished any more, by a trace that is still being written."""
    return all(one.rule != AT_REST for one in check(read([path]), at_rest=True).broken)


def broken_by_trace(path: Path | None) -> list[str]:
    """What a run that has come to rest breaks, by its trace; nothing when there is none.

    Args:
        path: what ``traced_to`` gave.
    """
    return [] if path is None else [str(one) for one in check(read([path]), at_rest=True).broken]
