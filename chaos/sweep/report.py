"""What a sweep comes to: counts for a person, and a verdict.

A sweep passes when nothing is wrong at any point, every series was struck at least once, and, in a sweep of everything,
every series of kills ended with a run that was not struck: only that shows that no call was left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chaos.sweep.points import WORDS, Fault, Stage
from chaos.sweep.series import TRIES, SeriesResult, Swept, Wish
from chaos.sweep.tracing import CALLS


def findings(swept: Swept, wish: Wish) -> list[str]:
    """What speaks against the product, or against the sweep; nothing, when it passes."""
    found = [
        f"{one.point}: {problem}" for result in swept.results for one in result.strikes for problem in one.problems
    ]
    found += [words for result in swept.results for words in _gaps(result, wish)]
    if not swept.results:
        found.append("nothing was swept: no such call is made")
    return found


def _gaps(result: SeriesResult, wish: Wish) -> Iterator[str]:
    if not result.hits and result.series.stage is not Stage.PLANNED:
        yield f"{result.series}: never struck, and {result.counted} calls were counted"
    everything = not (wish.quick or wish.choice.number)
    if everything and result.series.fault is Fault.KILL and not result.complete:
        yield f"{result.series}: its last run was struck too, so there may be more calls"


def show(console: Console, swept: Swept, wish: Wish, seconds: float) -> bool:
    """Print the counts and the verdict. Returns whether it passes."""
    console.print(_by_stage(swept.results))
    console.print(_by_call(swept.results))
    endings = Counter(one.ending.value for result in swept.results for one in result.strikes if one.hit and one.ending)
    points = sum(result.hits for result in swept.results)
    told = ", ".join(f"{name} {number}" for name, number in endings.most_common())
    missed = sum(
        not one.hit and one.point.number <= result.counted for result in swept.results for one in result.strikes
    )
    console.print(
        f"{points} crash points struck ({told}); {missed} were counted and came up no more in {TRIES} runs each"
    )
    console.print(f"{swept.restarts} starts of the coordinator, in {seconds / 60:.1f} minutes")
    console.print(
        f"{swept.asked} transactions asked for, {swept.acknowledged} acknowledged as committed; "
        f"{swept.judged} judgements, for each run is judged together with all before it"
    )
    found = findings(swept, wish)
    for words in found:
        console.print(Text(words, "red"))
    passed = not found
    verdict = "atomic at every point, nothing acknowledged is lost" if passed else f"{len(found)} findings"
    console.print(Text(f"verdict: {'pass' if passed else 'FAIL'}: {verdict}", "bold green" if passed else "bold red"))
    return passed


def _by_stage(results: Sequence[SeriesResult]) -> Table:
    table = _table("stage", "what happens in it")
    for stage in Stage:
        mine = [result for result in results if result.series.stage is stage]
        if mine:
            table.add_row(stage.value, WORDS[stage], *_cells(mine))
    return table


def _by_call(results: Sequence[SeriesResult]) -> Table:
    table = _table("call", "")
    known = {result.series.call for result in results}
    for call in [call for call in CALLS if call in known] + sorted(known.difference(CALLS)):
        table.add_row(call, "", *_cells([result for result in results if result.series.call == call]))
    table.add_row("all", "", *_cells(results), style="bold")
    return table


def _table(first: str, second: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column(first, no_wrap=True)
    table.add_column(second)
    for fault in Fault:
        table.add_column(fault.value, justify="right", no_wrap=True)
    return table


def _cells(results: Sequence[SeriesResult]) -> list[str]:
    """How many points were struck, by fault."""
    hits = Counter[Fault]()
    for result in results:
        hits[result.series.fault] += result.hits
    return [str(hits[fault] or "–") for fault in Fault]
