"""The demo as a program: its output, its exit code, and an orderly end whatever happens."""

from __future__ import annotations

import asyncio
import json as json_format
import logging
import sys

import grpc
import psycopg
from rich.console import Console
from rich.text import Text

from chaos.demo import pictures
from chaos.demo.findings import Findings
from chaos.demo.screen import Screen
from chaos.demo.story import Story
from chaos.stack import Stack, StackError
from handfast import HandfastError
from handfast.catalog import HandfastFault

TRANSFERS_MIN = 50
TRANSFERS_MAX = 10_000

_EXIT_OK = 0
_EXIT_DIFFERS = 1
_EXIT_INTERRUPTED = 130


def run_demo(*, json: bool, keep: bool, transfers: int = 1000) -> int:
    """Run the demo. Whatever it started is ended when it returns or raises.

    Args:
        json: print one JSON document on standard output, and nothing else there.
        keep: leave the folder with databases and logs where it is, and say where.
        transfers: how many transfers to make.

    Returns:
        The exit code: 0 when the run was atomic, 1 when it was not or could not be finished, 130 after Ctrl-C.

    Raises:
        HandfastFault: SETTING_INVALID: too few transfers to have some under way at each crash, or too many.
    """
    if not TRANSFERS_MIN <= transfers <= TRANSFERS_MAX:
        problem = f"it is {transfers}, and must be from {TRANSFERS_MIN} to {TRANSFERS_MAX:,}"
        raise HandfastFault("SETTING_INVALID", setting="transfers", problem=problem)
    # The story tells of lost connections and retries in its own words.
    logging.getLogger("handfast").setLevel(logging.CRITICAL)
    console = Console(quiet=json, highlight=False, emoji=False)
    try:
        findings = asyncio.run(_run(Screen(console), keep=keep, transfers=transfers))
    except KeyboardInterrupt:
        console.print(Text("\nStopped. Everything that was started is ended.", "yellow"))
        return _EXIT_INTERRUPTED
    except (StackError, HandfastError, TimeoutError, psycopg.Error, grpc.RpcError) as problem:
        words = str(problem) or type(problem).__name__
        Console(stderr=True, highlight=False, emoji=False).print(Text(f"The demo could not go on. {words}", "red"))
        return _EXIT_DIFFERS
    if json:
        sys.stdout.write(json_format.dumps(findings.as_json()) + "\n")
    return _EXIT_DIFFERS if findings.differences else _EXIT_OK


async def _run(screen: Screen, *, keep: bool, transfers: int) -> Findings:
    async with Stack(keep=keep) as stack:
        findings = await Story(stack, screen, transfers).tell()
    screen.step("Summary")
    screen.show(pictures.summary(findings))
    screen.step("Where to go next")
    screen.show(pictures.whither(str(stack.path) if keep else ""))
    screen.show(pictures.differing(findings))
    screen.console.print()
    screen.console.print(pictures.verdict(findings))
    return findings
