"""Reports on transactions: many on a line each, and one with all that is known of it."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from coordinator.cli.show_status import facts, table
from coordinator.cli.words import (
    NOTHING,
    branch_sign,
    branch_state,
    cause,
    clock_time,
    coloured,
    count,
    due,
    duration,
    moment,
    outcome,
    transaction_state,
    vote,
)
from handfast.v1 import admin_pb2, types_pb2

LEGEND = "branches: ✓ committed  ✗ rolled back  ? in doubt  · at work"
BRANCHES_SHOWN_MAX = 4


def listing(response: admin_pb2.ListTransactionsResponse, now_ms: int) -> RenderableType:
    """Many transactions, the newest first."""
    if not response.transactions:
        return Text("No transactions.")
    listed = table("gtrid", "state", "branches", "begun", "notes", whole=("gtrid", "state", "begun"))
    for transaction in response.transactions:
        listed.add_row(
            Text(transaction.gtrid, "bold"),
            coloured(transaction_state(transaction.state)),
            _signs(transaction.branches),
            moment(transaction.begun_unix_ms, now_ms),
            _note(transaction, now_ms),
        )
    more = f"; {response.more:,} more: raise --limit" if response.more else ""
    return Group(listed, Text(), Text(LEGEND + more, "dim"))


def change(response: admin_pb2.WatchTransactionsResponse, now_ms: int) -> RenderableType:
    """One change, on a line."""
    transaction = response.transaction
    line = Text.assemble(
        (clock_time(now_ms)[11:23], "dim"),
        "  ",
        (transaction.gtrid, "bold"),
        "  ",
        coloured(f"{transaction_state(transaction.state)}", f"{transaction_state(transaction.state):<10}"),
        "  ",
        _signs(transaction.branches),
    )
    note = _note(transaction, now_ms)
    if note.plain:
        line.append("  ").append_text(note)
    if response.skipped:
        line.append(f"  ({count(response.skipped, 'change')} left out before this one)", "yellow")
    return line


def one(transaction: admin_pb2.Transaction, now_ms: int) -> RenderableType:
    """A transaction with its branches and its history."""
    parts: list[RenderableType] = [summary(transaction, now_ms)]
    if transaction.branches:
        parts += [Text(), _branches(transaction.branches, now_ms), *_branch_notes(transaction.branches)]
    if transaction.history:
        parts += [Text(), _timeline(transaction)]
    return Group(*parts)


def summary(transaction: admin_pb2.Transaction, now_ms: int) -> RenderableType:
    """What a transaction is and where it stands, in a frame."""
    state = transaction_state(transaction.state)
    standing = coloured(state)
    ended = outcome(transaction.outcome)
    if ended not in (NOTHING, state):
        standing.append("  ").append_text(coloured(ended))
    rows: list[tuple[str, RenderableType]] = [("state", standing)]
    if transaction.cause or transaction.reason:
        rows.append(("because", _why(transaction)))
    rows += [
        (name, f"{clock_time(at)}  ({moment(at, now_ms)})")
        for name, at in (
            ("begun", transaction.begun_unix_ms),
            ("deadline", transaction.deadline_unix_ms),
            ("decided", transaction.decided_unix_ms),
            ("ended", transaction.ended_unix_ms),
        )
        if at
    ]
    known = "recovered from the log" if transaction.recovered else "interactive"
    kind = "one-shot" if transaction.one_shot else known
    rows.append(("kind", f"{kind}, begun by {transaction.client}" if transaction.client else kind))
    frame = coloured(ended if ended.startswith("HEURISTIC") else state).style
    return Panel(
        facts(*rows),
        title=Text(transaction.gtrid, "bold"),
        title_align="left",
        border_style=frame,
        box=box.ROUNDED,
        expand=False,
    )


def _why(transaction: admin_pb2.Transaction) -> Text:
    name = cause(transaction.cause)
    reason = transaction.reason
    return Text(f"{name}: {reason}" if name and reason else name or reason)


def _note(transaction: admin_pb2.Transaction, now_ms: int) -> Text:
    """The one thing that a person wants to know of it now."""
    retries = [branch.next_attempt_unix_ms for branch in transaction.branches if branch.next_attempt_unix_ms]
    ended = outcome(transaction.outcome)
    if ended.startswith("HEURISTIC"):
        return coloured(ended)
    if retries:
        return Text(f"next retry {due(min(retries), now_ms)}", "yellow")
    if transaction.cause or transaction.reason:
        return _why(transaction)
    if transaction.deadline_unix_ms:
        return Text(f"deadline {moment(transaction.deadline_unix_ms, now_ms)}", "dim")
    return Text()


def _signs(branches: Iterable[types_pb2.Branch]) -> Text:
    """Each branch's resource with the sign of its state; of many branches only how many are in each state."""
    shown = list(branches)
    if not shown:
        return Text(NOTHING, "dim")
    if len(shown) <= BRANCHES_SHOWN_MAX:
        return Text("  ").join(Text.assemble(branch.resource, " ", branch_sign(branch.state)) for branch in shown)
    states = list(dict.fromkeys(branch.state for branch in shown))
    tallies = [(state, sum(branch.state == state for branch in shown)) for state in states]
    return Text("  ").join(Text.assemble(str(number), " ", branch_sign(state)) for state, number in tallies)


def _branches(branches: Iterable[types_pb2.Branch], now_ms: int) -> Table:
    listed = table(
        "branch", "vote", "state", "attempts", "next retry", "outcome", right=("attempts",), whole=("vote", "state")
    )
    for branch in branches:
        listed.add_row(
            Text(branch.bqual, "bold"),
            coloured(vote(branch.vote)),
            coloured(branch_state(branch.state)),
            str(branch.attempts),
            due(branch.next_attempt_unix_ms, now_ms),
            coloured(outcome(branch.outcome)),
        )
    return listed


def _branch_notes(branches: Iterable[types_pb2.Branch]) -> list[RenderableType]:
    """What is too long for the table: why a branch said no, its last error, what proves its end."""
    notes: list[tuple[str, RenderableType]] = []
    for branch in branches:
        said = f"{branch.reason_code}: {branch.reason}" if branch.reason_code else branch.reason
        about = (
            ("reason", said, "yellow"),
            ("last error", branch.last_error, "red"),
            ("evidence", branch.evidence, ""),
        )
        notes += [(f"{branch.bqual}  {name}", Text(text, style)) for name, text, style in about if text]
    return [Text(), facts(*notes)] if notes else []


def _timeline(transaction: admin_pb2.Transaction) -> RenderableType:
    """The history as a line of events, each with its time since the first."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", style="dim", no_wrap=True)
    grid.add_column(style="dim")
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    entries = list(transaction.history)
    first_ms = entries[0].unix_ms
    for position, entry in enumerate(entries):
        rail = "┬" if position == 0 else "┴" if position == len(entries) - 1 else "┼"
        rail = "─" if len(entries) == 1 else rail
        grid.add_row(
            f"+{duration(entry.unix_ms - first_ms)}", rail, entry.event, entry.bqual, Text(entry.detail, "dim")
        )
    return Group(Text.assemble(("History", "bold"), (f" since {clock_time(first_ms)}", "dim")), grid)
