"""The report on what operators did, and who was refused what."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from coordinator.cli.words import clock_time, count
from handfast.v1 import admin_pb2


def operations(response: admin_pb2.ListOperationsResponse) -> RenderableType:
    """One paragraph for each: a table would have no room for names as long as those in certificates."""
    if not response.operations:
        return Text("No operator has done anything, and nobody was refused.")
    return Group(*(_operation(one) for one in response.operations))


def _operation(one: admin_pb2.OperatorAction) -> Text:
    word, style = ("REFUSED", "bold red") if one.error else ("done", "green")
    lines = Text.assemble((clock_time(one.unix_ms), "dim"), "  ", (word, style), "  ", (one.action, "bold"))
    if one.gtrid:
        lines.append(f"  {one.gtrid}")
    lines.append(f"\n    by {one.who}")
    if one.peer:
        lines.append(f" from {one.peer}", "dim")
    if one.reason:
        lines.append(f"\n    because {one.reason}")
    if one.before or one.after:
        lines.append(f"\n    {one.before} → {one.after}")
    if one.error:
        lines.append(f"\n    {one.error}", "red")
    if one.left_out:
        lines.append(f"\n    {count(one.left_out, 'more refusal')} of the same caller before it, left out", "dim")
    return lines
