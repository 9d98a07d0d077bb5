"""The figures as JSON, for programs, and as a table, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure

TABLE_WIDTH_MIN = 110


def as_json(figures: Sequence[Figure], machine: Mapping[str, object], details: Mapping[str, object]) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "machine": dict(machine),
        "figures": {figure.key: _figure(figure) for figure in figures},
        "details": dict(details),
    }


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write the results. Figures of an earlier run that this run did not measure are gone: a file is of one run."""
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _figure(figure: Figure) -> dict[str, Any]:
    aim, measured = figure.aim, figure.measured
    return {
        "value": round(measured.median, 4),
        "min": round(measured.min, 4),
        "max": round(measured.max, 4),
        "values": [round(value, 4) for value in measured.values],
        "reach": aim.reach,
        "direction": aim.direction,
        "reached": figure.reached,
        "unit": aim.unit,
        "what": aim.what,
        "baseline": aim.baseline,
        "note": figure.note,
    }


def print_table(figures: Sequence[Figure], machine: Mapping[str, object]) -> None:
    """Show the figures. One that is not reached says so."""
    console = Console(width=max(Console().width, TABLE_WIDTH_MIN))
    table = Table(title="Speed", caption=_caption(machine), caption_justify="left")
    for column, justify in (("figure", "left"), ("median", "right"), ("min", "right"), ("max", "right")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # a Literal made of str
    table.add_column("reach", justify="right", no_wrap=True)
    table.add_column("")
    for figure in figures:
        measured = figure.measured
        numbers = (shown(value) for value in (measured.median, measured.min, measured.max))
        table.add_row(figure.key, *numbers, reach_words(figure), verdict_words(figure))
    console.print(table)
    for figure in figures:
        if figure.note:
            console.print(f"[dim]{figure.key}: {figure.note}[/]")


def shown(value: float) -> str:
    """A number with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def reach_words(figure: Figure) -> str:
    """What it shall reach, in words."""
    aim = figure.aim
    return (
        "" if aim.reach is None else f"{'≥' if aim.direction == 'at least' else '≤'} {aim.reach:g} {aim.unit}".rstrip()
    )


def verdict_words(figure: Figure) -> str:
    """How it came out, in words."""
    return {True: "[green]reached[/]", False: "[bold red]not reached[/]", None: f"[dim]{figure.aim.unit}[/]"}[
        figure.reached
    ]


def _caption(machine: Mapping[str, object]) -> str:
    return (
        f"{machine['cores']} cores of {machine['processor']}, Python {machine['python']} ({machine['python_build']}), "
        f"Postgres {machine['postgres'] or '(not used)'}, {machine['date']}; load before: {machine['load_before']}"
    )
