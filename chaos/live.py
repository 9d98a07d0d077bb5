"""What a person sees while the lab runs: each event with its reason, and at the end a table of verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from chaos.events import Event
from chaos.runner import Result
from chaos.scenario import Finding, Scenario

_COLOURS = {
    "client": "cyan",
    "coordinator": "magenta",
    "accounts": "blue",
    "ledger": "blue",
    "postgres-accounts": "green",
    "postgres-ledger": "green",
}
_TIME_WIDTH = 8
_LANE_WIDTH = 17
_TABLE_WIDTH_MIN = 120


class Live:
    """Tells of the runs on a console, line by line, so that it reads as well in a log file.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    def begin(self, seed: int, scenarios: int) -> None:
        """Say what will be run, the seed first: it is what repeats the run."""
        runs = f"{scenarios} scenario{'s' if scenarios > 1 else ''}"
        self.console.print(Text.assemble(("seed ", "dim"), (str(seed), "bold"), ("  repeats this load: ", "dim"), runs))

    def scenario(self, scenario: Scenario, number: int, of: int) -> None:
        """Begin a scenario."""
        self.console.print()
        self.console.print(Rule(Text(f"{number}/{of}  {scenario.name}", "bold"), align="left", style="dim"))
        self.console.print(Padding(Text(scenario.teaches, "italic"), (0, 0, 0, 2)))

    def event(self, event: Event) -> None:
        """Tell what happened, and under it why it matters."""
        lane = event.lane or "lab"
        row = Table.grid(padding=(0, 2))
        row.add_column(width=_TIME_WIDTH, justify="right", style="dim")
        row.add_column(width=_LANE_WIDTH, style=_COLOURS.get(lane, "yellow"))
        row.add_column()
        words = Text(event.what)
        if event.why:
            words.append(f"\n{event.why}", "dim")
        row.add_row(f"{event.at_s:.2f} s", lane, words)
        self.console.print(row)

    def verdict(self, result: Result) -> None:
        """Tell how a scenario ended."""
        mark = ("✓ ", "bold green") if result.passed else ("✗ ", "bold red")
        style = "green" if result.passed else "red"
        self.console.print(Text.assemble("  ", mark, (result.observed, style), (f"  ({result.seconds:.0f} s)", "dim")))
        for finding in result.findings:
            if not finding.holds:
                self.console.print(Padding(Text(f"expected: {finding.expected}", "red"), (0, 0, 0, 4)))

    def findings(self, findings: Sequence[Finding]) -> None:
        """Tell what must hold, and what was seen."""
        for finding in findings:
            mark, style = ("✓ ", "green") if finding.holds else ("✗ ", "bold red")
            self.console.print(Text.assemble("  ", (f"{mark}{finding.expected}: {finding.observed}", style)))

    def note(self, words: str) -> None:
        """Say something about the lab itself."""
        self.console.print(Text(words, "dim"))

    def table(self, results: Sequence[Result]) -> None:
        """All verdicts."""
        self.console.print()
        self.console.print(_wide(results) if self.console.width >= _TABLE_WIDTH_MIN else _narrow(results))
        passed = sum(result.passed for result in results)
        style = "bold green" if passed == len(results) else "bold red"
        note = "  (longest and total: what writers waited for a row)"
        self.console.print(Text.assemble((f"{passed} of {len(results)} as expected", style), (note, "dim")))


def _wide(results: Sequence[Result]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("scenario", no_wrap=True)
    table.add_column("expected", ratio=3)
    table.add_column("observed", ratio=4)
    table.add_column("longest", justify="right", no_wrap=True)
    table.add_column("total", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for result in results:
        row: list[str | Text] = [result.scenario.name, result.scenario.expected, Text(result.observed)]
        table.add_row(*row, *blocked(result), _verdict(result))
    return table


def _narrow(results: Sequence[Result]) -> Table:
    """The same for a narrow terminal: what was expected and observed stands under the name."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("scenario, expected, observed")
    table.add_column("longest", justify="right", no_wrap=True)
    table.add_column("total", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for result in results:
        words = Text(result.scenario.name, "bold")
        words.append(f"\n{result.scenario.expected}", "not bold dim").append(f"\n{result.observed}", "not bold")
        table.add_row(words, *blocked(result), _verdict(result))
    return table


def _verdict(result: Result) -> Text:
    return Text("pass", "bold green") if result.passed else Text("FAIL", "bold red")


def blocked(result: Result) -> tuple[str, str]:
    """Blocked seconds, longest and total, as a table shows them."""
    if result.run is None:
        return "–", "–"
    return f"{result.run.blocked_longest_s:.1f} s", f"{result.run.blocked_total_s:.1f} s"
