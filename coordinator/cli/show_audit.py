"""The audit's report: the verdict where nobody can miss it, the numbers, and what differs with its evidence."""

from __future__ import annotations

from rich import box
from rich.align import Align
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from coordinator.cli.show_status import facts
from coordinator.cli.words import STYLES, count
from handfast.v1 import admin_pb2

ATOMIC = "ATOMIC"

EXPLANATIONS = {
    ATOMIC: "Every branch agrees with the log.",
    "PENDING": "Nothing contradicts the log; some branches have not ended, or could not be asked.",
    "DIFFERS": "Some branch ended against the log.",
}


def verdict(response: admin_pb2.AuditResponse) -> str:
    """ATOMIC, PENDING or DIFFERS."""
    return response.verdict.upper()


def audit(response: admin_pb2.AuditResponse) -> RenderableType:
    """The verdict with its numbers, then each difference."""
    word = verdict(response)
    parts: list[RenderableType] = [_banner(word), _numbers(response), Text()]
    for difference in response.differences:
        parts += [_difference_heading(difference), _difference(difference), Text()]
    for finding in response.unreachable:
        parts.append(Text.assemble(("not asked  ", "bold red"), (finding.subject, "bold"), f": {finding.found}"))
        if finding.mend:
            parts.append(Text(f"           mend: {finding.mend}"))
    return Group(*parts)


def _banner(word: str) -> RenderableType:
    style = STYLES.get(word, "bold red")
    unknown = "The coordinator gave a verdict that this version doesn't know."
    verdict_word = Text(f"   {word}   ", f"{style} reverse")
    words = Group(Align.center(verdict_word), "", Align.center(Text(EXPLANATIONS.get(word, unknown))))
    return Panel(words, box=box.DOUBLE, border_style=style, padding=(1, 4))


def _numbers(response: admin_pb2.AuditResponse) -> Text:
    parts = [
        Text(count(response.transactions, "transaction")),
        Text(count(response.branches, "branch", "branches")),
        Text(f"{response.in_doubt:,} in doubt", "magenta" if response.in_doubt else ""),
        Text(f"{response.unproved:,} unproved", "yellow" if response.unproved else ""),
        Text(count(len(response.differences), "difference"), "bold red" if response.differences else ""),
    ]
    if response.unreachable:
        parts.append(Text(f"{len(response.unreachable)} not asked", "bold red"))
    line = Text(" · ").join(parts)
    line.justify = "center"
    return line


def _difference_heading(difference: admin_pb2.AuditDifference) -> Rule:
    heading = Text.assemble(("✗ ", "bold red"), (difference.gtrid, "bold"), f"  {difference.bqual}")
    return Rule(heading, align="left", style="red")


def _difference(difference: admin_pb2.AuditDifference) -> RenderableType:
    return facts(
        ("  the log", Text(difference.log, "bold")),
        ("  the resource", Text(difference.resource, "bold red")),
        ("  evidence", difference.evidence),
        ("  mend", difference.mend),
    )
