"""The commands together, and what becomes of an error: words on standard error and an exit code, never a traceback."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from inspect import BoundArguments
from typing import Any, NoReturn

from cyclopts import App, CycloptsError

from coordinator.cli.about import explain_command, handfast_version, version_command
from coordinator.cli.admin import DEFAULT_TARGET
from coordinator.cli.certs import certs
from coordinator.cli.exit_codes import EPILOGUE, Exit, exit_code
from coordinator.cli.output import console, print_problem
from coordinator.cli.programs import chaos, demo_command
from coordinator.cli.reports import (
    audit_command,
    doctor_command,
    indoubt_command,
    operations_command,
    participants_command,
    status_command,
)
from coordinator.cli.resolving import resolve_command
from coordinator.cli.serving import serve_command
from coordinator.cli.transactions import transactions
from handfast.catalog import HandfastFault
from handfast.frames import CallFailed

INTERRUPTED = 130
"""What a shell gives for a program that Ctrl-C ended."""

app = App(
    name="handfast",
    help="Two-phase commit as a service: one unit of work across several Postgres databases, or none of it.",
    help_epilogue=EPILOGUE,
    help_format="markdown",
    version=handfast_version,
)
app.command(serve_command, name="serve")
app.command(status_command, name="status")
app.command(doctor_command, name="doctor")
app.command(transactions)
app.command(indoubt_command, name="indoubt")
app.command(participants_command, name="participants")
app.command(resolve_command, name="resolve")
app.command(operations_command, name="operations")
app.command(audit_command, name="audit")
app.command(certs)
app.command(demo_command, name="demo")
app.command(chaos)
app.command(explain_command, name="explain")
app.command(version_command, name="version")

Command = Callable[..., Any]


def main() -> NoReturn:
    """Run the command line that this process was given, and leave with its exit code."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does. Python would complain at exit when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.OK
    sys.exit(code)


def run(tokens: Sequence[str]) -> int:
    """Run a command line in an event loop of its own.

    Args:
        tokens: the words after ``handfast``.

    Returns:
        The exit code.
    """
    parsed = _parse(tokens)
    if parsed is None:
        return Exit.USAGE
    command, bound = parsed
    if not inspect.iscoroutinefunction(command):
        return _sync(command, bound)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_guarded(command, bound))


async def run_async(tokens: Sequence[str]) -> int:
    """The same inside a running event loop, for commands that need one."""
    parsed = _parse(tokens)
    if parsed is None:
        return Exit.USAGE
    command, bound = parsed
    return await _guarded(command, bound) if inspect.iscoroutinefunction(command) else _sync(command, bound)


def _parse(tokens: Sequence[str]) -> tuple[Command, BoundArguments] | None:
    """Find the command and its arguments; None when the command line is wrong, which has been said."""
    try:
        command, bound, _ = app.parse_args(
            list(tokens) or ["--help"],
            console=console(),
            error_console=console(errors=True),
            exit_on_error=False,
            print_error=True,
        )
    except CycloptsError:
        return None
    return command, bound


async def _guarded(command: Callable[..., Coroutine[Any, Any, int]], bound: BoundArguments) -> int:
    try:
        return await command(*bound.args, **bound.kwargs)
    except (HandfastFault, CallFailed) as problem:
        return _report(problem, bound)


def _sync(command: Command, bound: BoundArguments) -> int:
    try:
        return int(command(*bound.args, **bound.kwargs) or Exit.OK)
    except (HandfastFault, CallFailed) as problem:
        return _report(problem, bound)


def _report(problem: HandfastFault | CallFailed, bound: BoundArguments) -> int:
    target = bound.arguments.get("target", DEFAULT_TARGET)
    print_problem(problem, as_json=target.json or bool(bound.arguments.get("json")))
    return exit_code(problem)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one: it halves what a message costs."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
