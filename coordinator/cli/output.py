"""Where a command's answer goes: tables for a person, one JSON document for a script, errors beside both."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.text import Text

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from handfast.catalog import HandfastFault
    from handfast.frames import CallFailed

PIPED_WIDTH = 120
"""Columns when standard output is no terminal and COLUMNS says nothing: room for a gtrid beside its state."""


class _Console(Console):
    """A console that leaves a broken pipe to ``main``; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, errors: bool = False) -> Console:
    """Standard output, or standard error, as a place for tables."""
    stream = sys.stderr if errors else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return _Console(file=stream, width=width, highlight=False, emoji=False)


def answer(message: Message, *, as_json: bool, render: Callable[[], RenderableType]) -> None:
    """Print a response in the form that was asked for."""
    if as_json:
        from coordinator.cli.json_form import document

        print_json(document(message))
    else:
        console().print(render())


def print_json(content: Mapping[str, Any], *, one_line: bool = False) -> None:
    """Print a JSON document; a stream of them has one on each line, and each is flushed."""
    print(json.dumps(content, indent=None if one_line else 2, ensure_ascii=False), flush=one_line)


def print_problem(problem: HandfastFault | CallFailed, *, as_json: bool) -> None:
    """Say what happened and what to do: on standard error, or as the JSON document."""
    if as_json:
        from coordinator.cli.json_form import error_document

        print_json(error_document(problem))
        return
    errors = console(errors=True)
    errors.print(Text(problem.message, style="bold red"), soft_wrap=True)
    if problem.mend:
        errors.print(Text(problem.mend), soft_wrap=True)
    errors.print(Text(f"({problem.code}; `handfast explain {problem.code}`)", style="dim"), soft_wrap=True)
