"""``python -m chaos.soak``: run everything for a long time under every fault, and see that nothing grows."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from chaos.events import Event
from chaos.soak import picture, report
from chaos.soak.endure import soak
from chaos.stack import StackError
from chaos.toxiproxy import find_server

PICTURE = "soak.png"
_EXIT_OK, _EXIT_FAILED, _EXIT_INTERRUPTED = 0, 1, 130
_SEEDS = 1_000_000
_WIDTH_MIN = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, and tell the exit code: 0 when nothing grows and every rule holds, else 1."""
    parser = argparse.ArgumentParser(prog="python -m chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--seed", type=int, help="repeat the load and the faults of an earlier run")
    parser.add_argument("--report", type=Path, default=Path("soak-report"), help="folder for the picture (soak-report)")
    parser.add_argument("--keep", action="store_true", help="keep the stack's folder: databases and logs")
    given = parser.parse_args(arguments)
    seed = random.randrange(_SEEDS) if given.seed is None else given.seed
    # What clients and proxies go through is told by the events, and judged at the end.
    logging.getLogger("handfast").setLevel(logging.CRITICAL)
    console = Console(highlight=False, emoji=False)
    console.width = max(console.width, _WIDTH_MIN)  # a table in a file is cut nowhere

    def tell(words: str) -> None:
        console.print(Text(words, "dim"))

    def on_event(event: Event) -> None:
        if event.lane != "client":  # thousands of transfers
            tell(f"{event.at_s:7.1f} s  {event.lane:17}  {event.what}")

    tell(f"seed {seed}, {given.minutes:g} minutes")
    try:
        soaked = asyncio.run(
            soak(seed=seed, minutes=given.minutes, listener=on_event, toxiproxy=find_server(tell=tell), keep=given.keep)
        )
    except KeyboardInterrupt:
        console.print(Text("Stopped. Everything that was started is ended.", "yellow"))
        return _EXIT_INTERRUPTED
    except StackError as problem:
        console.print(Text(str(problem), "red"))
        return _EXIT_FAILED
    given.report.mkdir(parents=True, exist_ok=True)
    picture.draw(soaked, given.report / PICTURE)
    report.show(console, soaked)
    tell(f"The curves: {given.report / PICTURE}")
    return _EXIT_OK if soaked.passed else _EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
