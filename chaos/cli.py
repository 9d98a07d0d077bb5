"""`handfast chaos`: list the scenarios, run them, report."""

from __future__ import annotations

import asyncio
import json as json_format
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chaos import report as reports
from chaos.live import Live
from chaos.own import run_own
from chaos.own_plan import PlanInvalid
from chaos.runner import Result, run_scenario
from chaos.scenario import Scenario
from chaos.scenarios import NAMES, every, find
from chaos.stack import Stack, StackError
from chaos.toxiproxy import find_server

_SEEDS = 1_000_000
_EXIT_OK, _EXIT_FAILED, _EXIT_USAGE, _EXIT_INTERRUPTED = 0, 1, 2, 130

app = App(
    name="handfast chaos",
    help="See what each failure does to two-phase commit: real processes, two databases, a proxy on every link.",
    version_flags=[],
)


@app.command(name="list")
def list_command(*, json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False) -> int:
    """List the scenarios and what each teaches."""
    scenarios = every()
    if json:
        told = [{"name": one.name, "lesson": one.teaches, "expected": one.expected} for one in scenarios]
        sys.stdout.write(json_format.dumps({"scenarios": told}, indent=2) + "\n")
        return _EXIT_OK
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("scenario", no_wrap=True, style="bold")
    table.add_column("what it teaches")
    for one in scenarios:
        table.add_row(one.name, one.teaches)
    console = Console(highlight=False, emoji=False)
    console.print(table)
    console.print(Text("Run one: handfast chaos run NAME, or all: handfast chaos run --all", "dim"))
    return _EXIT_OK


@app.command(name="run")
def run_command(
    *names: Annotated[str, Parameter(help="Scenarios, by name.")],
    all: Annotated[bool, Parameter(negative="", help="Run every scenario.")] = False,
    short: Annotated[bool, Parameter(negative="", help="Run the quick ones.")] = False,
    seed: Annotated[int | None, Parameter(help="Repeat the load and the schedule of an earlier run.")] = None,
    keep: Annotated[bool, Parameter(negative="", help="Keep each stack's folder: databases and logs.")] = False,
    trace: Annotated[
        bool, Parameter(negative="", help="Have every process trace its protocol events, and judge the traces too.")
    ] = False,
    report: Annotated[Path | None, Parameter(help="Write index.html, report.json and the pictures here.")] = None,
    minutes: Annotated[float, Parameter(help="How long `everything` lasts.")] = 1.0,
    json: Annotated[
        bool, Parameter(negative="", help="Print report.json on standard output, and nothing else.")
    ] = False,
) -> int:
    """Run scenarios against real processes, and judge what is left.

    Ends with 1 when something was not as expected.
    """
    errors = Console(stderr=True, highlight=False, emoji=False)
    try:
        scenarios = _chosen(names, all_of_them=all, short=short)
    except LookupError as problem:
        errors.print(Text(str(problem.args[0]), "red"))
        return _EXIT_USAGE
    seed = random.randrange(_SEEDS) if seed is None else seed
    # What clients and proxies go through is told by the scenario, in its own words.
    logging.getLogger("handfast").setLevel(logging.CRITICAL)
    live = Live(Console(quiet=json, highlight=False, emoji=False))
    try:
        results = _run_all(scenarios, live, seed=seed, keep=keep, minutes=minutes, trace=trace)
    except KeyboardInterrupt:
        errors.print(Text("Stopped. Everything that was started is ended.", "yellow"))
        return _EXIT_INTERRUPTED
    except StackError as problem:
        errors.print(Text(str(problem), "red"))
        return _EXIT_FAILED
    live.table(results)
    if report is not None:
        live.note(f"The report: {reports.write(results, report)}")
    if json:
        sys.stdout.write(json_format.dumps(reports.as_json(results)) + "\n")
    return _EXIT_OK if reports.verdict(results) == "pass" else _EXIT_FAILED


@app.command(name="own")
def own_command(
    plan: Annotated[Path, Parameter(help="TOML file: processes, links, load, faults, invariants.")],
    /,
    *,
    json: Annotated[bool, Parameter(negative="", help="Print JSON on standard output, and nothing else.")] = False,
) -> int:
    """Do the lab's harm to your own services, and judge them by your own SQL.

    docs/chaos.md shows a plan. Ends with 1 when something was not as it must be.
    """
    live = Live(Console(quiet=json, highlight=False, emoji=False))
    try:
        result = run_own(plan, live.event)
    except (PlanInvalid, StackError, LookupError) as problem:
        Console(stderr=True, highlight=False, emoji=False).print(Text(str(problem), "red"))
        return _EXIT_USAGE if isinstance(problem, PlanInvalid) else _EXIT_FAILED
    live.findings(result.findings)
    endings = {str(code): number for code, number in sorted(result.calls.items())}
    live.note(f"The load's commands ended with: {', '.join(f'{code} ({n} times)' for code, n in endings.items())}")
    if json:
        told = [{"expected": one.expected, "observed": one.observed, "holds": one.holds} for one in result.findings]
        verdict = "pass" if result.passed else "fail"
        sys.stdout.write(json_format.dumps({"findings": told, "exit_codes": endings, "verdict": verdict}) + "\n")
    return _EXIT_OK if result.passed else _EXIT_FAILED


def _chosen(names: Sequence[str], *, all_of_them: bool, short: bool) -> list[Scenario]:
    """The scenarios to run. Raises LookupError, with words for the user, when there are none."""
    if all_of_them:
        return every()
    chosen = [find(name) for name in names]
    if short:
        chosen += [one for one in every() if "short" in one.tags and one.name not in names]
    if not chosen:
        raise LookupError(f"Name a scenario, or give --all. There are: {', '.join(NAMES)}")
    return chosen


def _run_all(
    scenarios: Sequence[Scenario], live: Live, *, seed: int, keep: bool, minutes: float, trace: bool
) -> list[Result]:
    live.begin(seed, len(scenarios))
    toxiproxy = find_server(tell=live.note)
    results = []
    with Stack() as shared:
        for number, scenario in enumerate(scenarios, 1):
            live.scenario(scenario, number, len(scenarios))
            result = asyncio.run(
                run_scenario(
                    scenario,
                    shared.path,
                    seed=seed,
                    minutes=minutes,
                    listener=live.event,
                    keep=keep,
                    trace=trace,
                    toxiproxy=toxiproxy,
                )
            )
            live.verdict(result)
            results.append(result)
    return results
