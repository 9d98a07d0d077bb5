"""The report of a run of scenarios: report.json for programs, index.html for people, and the pictures.

index.html needs nothing beside it: the pictures are inside, as are the styles.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from chaos.history import Status
from chaos.live import blocked
from chaos.runner import Result

_PAGE = Path(__file__).with_name("report.html")


def as_json(results: Sequence[Result]) -> dict[str, object]:
    """The form of report.json and of ``--json``."""
    return {"scenarios": [_scenario_json(result) for result in results], "verdict": verdict(results)}


def verdict(results: Sequence[Result]) -> str:
    """``pass`` when every scenario passed, otherwise ``fail``."""
    return "pass" if results and all(result.passed for result in results) else "fail"


def write(results: Sequence[Result], folder: Path) -> Path:
    """Write the report.

    Args:
        results: of the scenarios, in order.
        folder: where to; made when it is not there.

    Returns:
        The page to open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(as_json(results), indent=2) + "\n")
    sections = "\n".join(_section(result, _picture(result, folder)) for result in results)
    page = _PAGE.read_text()
    for name, filling in {"SUMMARY": _summary(results), "ROWS": _rows(results), "SECTIONS": sections}.items():
        page = page.replace(f"<!-- {name} -->", filling)
    index = folder / "index.html"
    index.write_text(page)
    return index


def _scenario_json(result: Result) -> dict[str, object]:
    run = result.run
    return {
        "name": result.scenario.name,
        "verdict": "pass" if result.passed else "fail",
        "blocked_longest_s": round(run.blocked_longest_s, 3) if run else 0.0,
        "blocked_total_s": round(run.blocked_total_s, 3) if run else 0.0,
        "transactions": len(run.calls) if run else 0,
        "committed": run.count(Status.OK) if run else 0,
        "aborted": run.count(Status.FAIL) if run else 0,
        "unknown_resolved": run.unknown_resolved if run else 0,
        "lesson": result.scenario.teaches,
    }


def _picture(result: Result, folder: Path) -> str:
    """Draw it, and give it as the address of an image that holds itself."""
    if result.run is None:
        return ""
    from chaos.timeline import draw  # matplotlib is slow to load, and only a report needs it

    png, svg = draw(result.run, result.scenario, folder, result.scenario.name)
    kind, path = ("svg+xml", svg) if svg.stat().st_size < _SVG_BYTES_MAX else ("png", png)
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


_SVG_BYTES_MAX = 400_000
"""A crowded picture is smaller as pixels."""


def _summary(results: Sequence[Result]) -> str:
    passed = sum(result.passed for result in results)
    calls = sum(len(result.run.calls) for result in results if result.run)
    longest_s = max((result.run.blocked_longest_s for result in results if result.run), default=0.0)
    seeds = ", ".join(sorted({str(result.seed) for result in results}))
    kind = "pass" if verdict(results) == "pass" else "fail"
    return (
        f'<p class="summary"><span class="badge {kind}">{passed} of {len(results)} as expected</span> '
        f"{calls:,} transactions, the longest wait for a row {longest_s:.1f} s, seed {escape(seeds)}</p>"
    )


def _rows(results: Sequence[Result]) -> str:
    return "\n".join(_row(result) for result in results)


def _row(result: Result) -> str:
    longest, total = blocked(result)
    name = escape(result.scenario.name)
    cells = [
        f'<td><a href="#{name}">{name}</a></td>',
        f"<td>{escape(result.scenario.expected)}</td>",
        f"<td>{escape(result.observed)}</td>",
        f'<td class="number">{longest}</td>',
        f'<td class="number">{total}</td>',
        f"<td>{_badge(result)}</td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _badge(result: Result) -> str:
    return f'<span class="badge {"pass" if result.passed else "fail"}">{"pass" if result.passed else "FAIL"}</span>'


def _section(result: Result, picture: str) -> str:
    scenario = result.scenario
    image = f'<img src="{picture}" alt="Timeline of {escape(scenario.name)}">' if picture else ""
    parts = [
        f'<section id="{escape(scenario.name)}">',
        f"<h2>{escape(scenario.name)} {_badge(result)}</h2>",
        f'<p class="lesson">{escape(scenario.teaches)}</p>',
        f"<p>{escape(scenario.why)}</p>",
        image,
        _findings(result),
        _events(result),
        *(_log(name, text) for name, text in result.logs.items() if text),
        "</section>",
    ]
    return "\n".join(parts)


def _findings(result: Result) -> str:
    items = [(finding.holds, f"{finding.expected}: {finding.observed}") for finding in result.findings]
    if result.run is not None:
        for rule, violations in result.run.violations.items():
            must_break = rule in result.scenario.breaks
            found = "; ".join(violations[:3]) or "nothing speaks against it"
            words = f"{rule}{' is seen broken, as it must be here' if must_break else ''}: {found}"
            items.append((bool(violations) == must_break, words))
    if result.error:
        items.append((False, result.error))
    lines = [f'<li class="{"holds" if holds else "broken"}">{escape(words)}</li>' for holds, words in items]
    return f'<ul class="findings">{"".join(lines)}</ul>'


def _events(result: Result) -> str:
    rows = [
        f'<tr><td class="number">{event.at_s:.2f} s</td><td>{escape(event.lane or "lab")}</td>'
        f'<td>{escape(event.what)}<div class="why">{escape(event.why)}</div></td></tr>'
        for event in result.events
    ]
    return f'<details><summary>What happened</summary><table class="events">{"".join(rows)}</table></details>'


def _log(name: str, text: str) -> str:
    return f"<details><summary>The last lines of {escape(name)}</summary><pre>{escape(text)}</pre></details>"
