"""``python -m chaos.sweep``: kill the coordinator, or fail its disk, at every call that changes its log's files."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from chaos.stack import StackError
from chaos.sweep import report
from chaos.sweep.points import WORDS, Choice, Stage
from chaos.sweep.series import Wish, sweep
from chaos.sweep.tracing import find_strace

_EXIT_OK, _EXIT_FAILED, _EXIT_USAGE, _EXIT_INTERRUPTED = 0, 1, 2, 130
_WIDTH_MIN = 110


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep, and tell the exit code: 0 when all is well, 1 when not, 2 when the command line is wrong."""
    errors = Console(stderr=True, highlight=False, emoji=False)
    console = Console(highlight=False, emoji=False)
    console.width = max(console.width, _WIDTH_MIN)  # a table in a file is cut nowhere
    try:
        wish = _wish(arguments)
    except ValueError as problem:
        errors.print(Text(str(problem), "red"))
        return _EXIT_USAGE
    # What clients go through while the coordinator is away is told by the judges.
    logging.getLogger("handfast").setLevel(logging.CRITICAL)
    started_s = time.monotonic()

    def tell(words: str) -> None:
        console.print(Text(f"{time.monotonic() - started_s:6.0f} s  {words}", "dim"))

    try:
        strace = () if wish.is_planned else find_strace(tell=tell)
        swept = asyncio.run(sweep(wish, strace, tell))
    except KeyboardInterrupt:
        errors.print(Text("Stopped. Everything that was started is ended.", "yellow"))
        return _EXIT_INTERRUPTED
    except StackError as problem:
        errors.print(Text(str(problem), "red"))
        return _EXIT_FAILED
    return _EXIT_OK if report.show(console, swept, wish, time.monotonic() - started_s) else _EXIT_FAILED


def _wish(arguments: Sequence[str] | None) -> Wish:
    parser = argparse.ArgumentParser(prog="python -m chaos.sweep", description=__doc__)
    stages = "; ".join(f"{stage.value}: {WORDS[stage]}" for stage in Stage)
    parser.add_argument("--quick", action="store_true", help="only every fifth write; every force all the same")
    parser.add_argument("--only", default="", metavar="STAGE[:CALL[:FAULT[:NUMBER]]]", help=stages)
    parser.add_argument("--lanes", type=int, default=max(2, (os.cpu_count() or 2) // 2), help="stacks side by side")
    parser.add_argument("--keep", action="store_true", help="keep the stacks' folders: databases and logs")
    given = parser.parse_args(arguments)
    choice = Choice.parse(given.only)
    return Wish(choice=choice, quick=given.quick, lanes=given.lanes, keep=given.keep)


if __name__ == "__main__":
    sys.exit(main())
