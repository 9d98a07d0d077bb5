"""What the demo shows while it runs: steps, sentences to read, and regions that move.

Nothing here knows what happens; the story says it. A silent screen (for `--json`) draws nothing and waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

from rich.console import Console, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

FRAMES_PER_S = 10
UNHURRIED_S = 30.0
INDENT = (0, 0, 0, 2)


class Screen:
    """A terminal, a pipe, or nothing.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._steps = 0
        self._began_s = time.monotonic()

    @property
    def watched(self) -> bool:
        """Whether a person looks on, who needs time to read."""
        return self.console.is_terminal and not self.console.quiet

    def step(self, title: str, *sentences: str) -> None:
        """Begin a new step, and explain it."""
        self._steps += 1
        self.console.print()
        self.console.print(Rule(Text(f"{self._steps}  {title}", "bold cyan"), align="left", style="cyan"))
        self.say(*sentences)

    def say(self, *sentences: str) -> None:
        """Explain something, in Rich's markup."""
        for sentence in sentences:
            self.show(Text.from_markup(sentence))

    def show(self, what: RenderableType) -> None:
        """Draw something under the present step."""
        self.console.print(Padding(what, INDENT))

    def happened(self, what: str) -> None:
        """Say that something went as it should."""
        self.show(Text.assemble(("✓ ", "bold green"), Text.from_markup(what)))

    def struck(self, what: str) -> None:
        """Say that something was killed."""
        self.show(Text.assemble(("✗ ", "bold red"), Text.from_markup(f"[bold red]{what}[/]")))

    async def read(self, seconds: float) -> None:
        """Leave a person the time to read what was just shown, unless a slow machine has left enough of it."""
        if self.watched and time.monotonic() - self._began_s < UNHURRIED_S:
            await asyncio.sleep(seconds)

    @contextlib.asynccontextmanager
    async def moving(self, draw: Callable[[], RenderableType]) -> AsyncIterator[None]:
        """Draw something again and again for the length of a block; what it shows last stays.

        Args:
            draw: gives what to draw now.
        """
        frame = _Frame(draw)
        if not self.watched:
            yield
            self.show(frame)
            return
        with Live(Padding(frame, INDENT), console=self.console, refresh_per_second=FRAMES_PER_S, transient=False):
            yield

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Say what is being done, for as long as a block takes."""
        if not self.watched:
            yield
            return
        with self.console.status(Text(what, "dim")):
            yield


class _Frame:
    """Drawn afresh whenever the terminal is refreshed."""

    def __init__(self, draw: Callable[[], RenderableType]) -> None:
        self._draw = draw

    def __rich__(self) -> RenderableType:
        return self._draw()
