"""The check-up's report: findings by subject, each with a verdict and what mends it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from coordinator.cli.words import STYLES, coloured, severity
from handfast.v1 import admin_pb2, participant_pb2

SIGNS = {"OK": "✓", "WARN": "!", "FAIL": "✗"}
CHECK_WIDTH_MAX = 32
WORST_FIRST = ("FAIL", "WARN", "OK")


def failed(findings: Iterable[participant_pb2.Finding]) -> bool:
    """Tell whether one of them is a FAIL."""
    return any(severity(finding.severity) == "FAIL" for finding in findings)


def doctor(response: admin_pb2.DiagnoseResponse) -> RenderableType:
    """Findings by subject, the coordinator first, then the worst."""
    by_subject: dict[str, list[participant_pb2.Finding]] = {}
    for finding in response.findings:
        by_subject.setdefault(finding.subject or "coordinator", []).append(finding)
    check_width = min(max((len(finding.check) for finding in response.findings), default=0), CHECK_WIDTH_MAX)
    parts: list[RenderableType] = []
    for subject in sorted(by_subject, key=lambda name: name != "coordinator"):
        parts += [
            Rule(Text(subject, "bold"), align="left", style="dim"),
            _findings(by_subject[subject], check_width),
            Text(),
        ]
    return Group(*parts, _tally(response.findings))


def _findings(findings: Iterable[participant_pb2.Finding], check_width: int) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", width=check_width)
    grid.add_column(overflow="fold")
    for finding in sorted(findings, key=lambda one: WORST_FIRST.index(severity(one.severity))):
        word = severity(finding.severity)
        found = Text(finding.found)
        if finding.mend:
            found.append("\nmend: ", "bold").append(finding.mend)
        grid.add_row(coloured(word, f"{SIGNS[word]} {word:<4}"), finding.check, found)
    return grid


def _tally(findings: Iterable[participant_pb2.Finding]) -> Text:
    words = [severity(finding.severity) for finding in findings]
    counts = [(word, words.count(word)) for word in WORST_FIRST if word in words]
    if not counts:
        return Text("Nothing was checked.", STYLES["WARN"])
    return Text(", ").join(coloured(word, f"{number} {word}") for word, number in counts)
