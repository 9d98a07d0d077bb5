"""The commands together, and what becomes of an error: words on standard error and an exit code, never a traceback."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from inspect import BoundArguments
from typing import TYPE_CHECKING, Any, NoReturn

from cyclopts import App, CycloptsError

from coordinator.cli.exit_codes import EPILOGUE, Exit, exit_code

if TYPE_CHECKING:
    from handfast.catalog import HandfastFault
    from handfast.frames import CallFailed

INTERRUPTED = 130
"""What a shell gives for a program that Ctrl-C ended."""

COMMANDS = {
    "serve": ("serving:serve_command", "Run the coordinator until it is told to stop (Ctrl-C or SIGTERM)."),
    "status": ("reports:status_command", "Tell who the coordinator is and how it is doing."),
    "doctor": (
        "reports:doctor_command",
        "Check the log, the clock, each participant and each database, and say how to mend what is wrong.",
    ),
    "transactions": ("transactions:transactions", "List, show or watch transactions."),
    "indoubt": (
        "reports:indoubt_command",
        "Show each branch in doubt: why, since when, what it blocks, and the command that resolves it.",
    ),
    "participants": (
        "reports:participants_command",
        "List the registered participants, and whether each can be reached now.",
    ),
    "resolve": ("resolving:resolve_command", "Commit, roll back, retry or forget a transaction by hand."),
    "operations": (
        "reports:operations_command",
        "List what operators did and who was refused what, the newest first: who, when, what, why, before and after.",
    ),
    "audit": (
        "reports:audit_command",
        "Compare the log with every participant: ATOMIC, PENDING, or DIFFERS with the evidence.",
    ),
    "log": ("log_commands:log", "Look into a decision log's file, closed or in use."),
    "certs": ("certs:certs", "Make certificates for mutual TLS."),
    "demo": (
        "programs:demo_command",
        "Run two databases and a bank, kill processes at the worst moment, and audit what is left.",
    ),
    "chaos": (
        "programs:chaos",
        "Run fault scenarios against real processes; `handfast chaos --help` lists its commands.",
    ),
    "explain": ("about:explain_command", "Explain an error by its code: what happened, and what to do."),
    "version": ("about:version_command", "Print the version of Handfast, and of what it runs on."),
}
"""Each command's place in this package, and the first sentence of its help, so that the list of all loads none."""


def make_app(chosen: str | None = None) -> App:
    """Put the commands together.

    Args:
        chosen: the one that is to run, whose module is imported; the others are only named. None imports all of them.
    """
    app = App(
        name="handfast",
        help="Two-phase commit as a service: one unit of work across several Postgres databases, or none of it.",
        help_epilogue=EPILOGUE,
        help_format="markdown",
        version=_version,
    )
    for name, (place, summary) in COMMANDS.items():
        path = f"{__package__}.{place}"
        if chosen in (None, name):
            command = _imported(path)
            app.command(command) if isinstance(command, App) else app.command(command, name=name)
        else:
            app.command(path, name=name, help=summary)
    return app


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _version() -> str:
    from coordinator.cli.about import handfast_version

    return handfast_version()


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
    from coordinator.cli.output import console

    given = list(tokens) or ["--help"]
    try:
        command, bound, _ = make_app(given[0]).parse_args(
            given,
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
    except _problems() as problem:
        return _report(problem, bound)


def _sync(command: Command, bound: BoundArguments) -> int:
    try:
        return int(command(*bound.args, **bound.kwargs) or Exit.OK)
    except _problems() as problem:
        return _report(problem, bound)


def _problems() -> tuple[type[HandfastFault], type[CallFailed]]:
    """What becomes words; asked only when something was raised, for it loads gRPC."""
    from handfast.catalog import HandfastFault
    from handfast.frames import CallFailed

    return HandfastFault, CallFailed


def _report(problem: HandfastFault | CallFailed, bound: BoundArguments) -> int:
    from coordinator.cli.admin import DEFAULT_TARGET
    from coordinator.cli.output import print_problem

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
