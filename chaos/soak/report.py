"""The soak's table and verdict."""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chaos.history import Status
from chaos.soak.endure import Soaked
from chaos.soak.flatness import Judgement, Measure


def show(console: Console, soaked: Soaked) -> None:
    """Print them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for column in ("measure", "process"):
        table.add_column(column, no_wrap=True)
    for column in ("first third", "last third", "may be", "most seen"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    order = list(Measure)
    for one in sorted(soaked.judgements, key=lambda one: (order.index(one.measure), one.process)):
        table.add_row(one.measure.value, one.process, *_figures(one), _word(one))
    console.print(table)
    counts = {status: sum(call.known is status for call in soaked.calls) for status in Status}
    console.print(
        f"{soaked.seconds / 60:.1f} minutes, {len(soaked.faults)} faults, {len(soaked.calls)} transfers: "
        f"{counts[Status.OK]} committed, {counts[Status.FAIL]} not, {counts[Status.INFO]} unknown"
    )
    for words in soaked.violations:
        console.print(Text(words, "red"))
    grown = sum(not one.is_flat for one in soaked.judgements)
    if soaked.passed:
        console.print(Text("verdict: pass: everything is flat, every rule holds", "bold green"))
    else:
        console.print(Text(f"verdict: FAIL: {grown} grow, {len(soaked.violations)} rules broken", "bold red"))


def _figures(one: Judgement) -> list[str]:
    seen = (one.first, one.last, one.limit, one.most)
    return ["–" if value is None else f"{value:.1f}".removesuffix(".0") for value in seen]


def _word(one: Judgement) -> Text:
    if one.first is None or one.last is None:
        return Text("not seen", "bold red")
    return Text("flat", "green") if one.is_flat and not math.isnan(one.last) else Text("GROWS", "bold red")
