"""Reports on the coordinator itself: who it is, and which participants it knows."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from coordinator.cli.words import NOTHING, STYLES, coloured, duration, moment
from handfast.v1 import admin_pb2


def facts(*rows: tuple[str, RenderableType]) -> Table:
    """Names and values in two columns."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, value)
    return grid


def table(*columns: str, right: tuple[str, ...] = (), whole: tuple[str, ...] = ()) -> Table:
    """An empty table in the one look that all reports share.

    Args:
        columns: the headings.
        right: those whose cells are numbers.
        whole: those whose cells must not be broken, so that they can be copied.
    """
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for name in columns:
        made.add_column(
            name, justify="right" if name in right else "left", no_wrap=name in (*right, *whole), overflow="fold"
        )
    return made


def status(response: admin_pb2.GetStatusResponse, address: str) -> RenderableType:
    """Who the coordinator is and how it is doing."""
    standing = Text("stopping: it takes no new work", "bold yellow") if response.stopping else Text("serving", "green")
    who = facts(
        ("coordinator", Text(response.coordinator_id, "bold")),
        ("address", address),
        ("standing", standing),
        ("epoch", str(response.epoch)),
        ("up for", duration(response.uptime_ms)),
        ("log", response.log),
        ("version", response.version),
    )
    held = table("transactions", "held", right=("held",))
    states = sorted(response.transactions_by_state, key=_order)
    for name in states:
        word = name.removeprefix("TRANSACTION_STATE_").upper()
        held.add_row(coloured(word), f"{response.transactions_by_state[name]:,}")
    if not states:
        held.add_row(Text("none", "dim"), "0")
    counted = table("since start", "count", right=("count",))
    for name in sorted(response.counters):
        counted.add_row(name.replace("_", " "), f"{response.counters[name]:,}")
    beside = Table.grid(padding=(0, 6))
    beside.add_row(held, counted)
    return Group(Panel(who, title="handfast", title_align="left", box=box.ROUNDED, expand=False), Text(), beside)


def _order(state: str) -> int:
    words = list(STYLES)
    word = state.removeprefix("TRANSACTION_STATE_").upper()
    return words.index(word) if word in words else len(words)


def participants(response: admin_pb2.ListParticipantsResponse, now_ms: int) -> RenderableType:
    """Who has registered, and whether each can be reached."""
    if not response.participants:
        return Text("No participant has registered. Start a service that has one, or name it with --participant.")
    listed = table(
        "resource", "instance", "address", "kind", "reachable", "calls", "registered", whole=("resource", "instance")
    )
    notes: list[Text] = []
    for one in response.participants:
        reachable = Text("✓ yes", "green") if one.reachable else Text("✗ no", "bold red")
        calls = NOTHING if not one.reachable else "batched" if one.batched else "unary"
        registered = moment(one.registered_unix_ms, now_ms)
        listed.add_row(
            Text(one.resource, "bold"), one.instance, one.address, one.kind or NOTHING, reachable, calls, registered
        )
        if one.last_error:
            notes.append(Text(f"{one.resource}.{one.instance}: {one.last_error}", "red"))
        if one.operations:
            notes.append(Text(f"{one.resource}.{one.instance} does: {', '.join(one.operations)}", "dim"))
    return Group(listed, Text(), *notes) if notes else listed
