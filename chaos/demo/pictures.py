"""The demo's pictures, apart from the crash scene: the bank, the progress, the audit, the summary, the verdict."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from chaos.bank_stack import BankStack
from chaos.demo.findings import Findings
from chaos.demo.transfers import Fate, Workload
from handfast.v1 import admin_pb2

BAR_WIDTH = 40


def money(cents: int) -> str:
    """`2,000.00`."""
    return f"{cents / 100:,.2f}"


def bank(stacked: BankStack) -> RenderableType:
    """Who talks to whom, and where they listen."""
    grid = Table.grid(padding=(0, 1))
    ports = {service: f"Postgres :{cluster.port}" for service, cluster in stacked.databases.items()}
    grid.add_row("application", "─┬─→", Text("accounts", "cyan"), "──→", Text(ports["accounts"], "green"))
    grid.add_row("", " ├─→", Text("ledger", "cyan"), "──→", Text(ports["ledger"], "green"))
    grid.add_row("", " ╰─→", Text("coordinator", "magenta"), "──→", Text("its log", "green"))
    return Padding(grid, (1, 0))


def progress(workload: Workload) -> RenderableType:
    """How far the transfers are."""
    row = Table.grid(padding=(0, 2))
    row.add_row(
        ProgressBar(workload.total, workload.done, width=BAR_WIDTH, complete_style="cyan", finished_style="green"),
        f"{workload.done:,} of {workload.total:,}",
        Text(f"{workload.count(Fate.COMMITTED):,} committed", "green"),
        Text(f"{workload.count(Fate.ABORTED):,} aborted", "yellow"),
        Text(f"{workload.in_flight} under way", "dim"),
    )
    return row


def audit(response: admin_pb2.AuditResponse, lines: int) -> RenderableType:
    """The audit in one line."""
    good = response.verdict == "atomic"
    return Text(
        f"{'✓' if good else '✗'} audit: {response.verdict}; {response.transactions:,} decisions, "
        f"{response.branches:,} branches and {lines:,} journal lines compared, {response.in_doubt} in doubt",
        "green" if good else "bold red",
    )


def summary(findings: Findings) -> RenderableType:
    """All the numbers."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    table.add_row("transfers", f"{findings.transfers:,}", "")
    table.add_row("committed", Text(f"{findings.committed:,}", "bold green"), "")
    table.add_row("aborted", Text(f"{findings.aborts.total():,}", "bold yellow"), "")
    for reason, number in findings.aborts.most_common():
        table.add_row("", Text(f"{number:,}", "yellow"), reason)
    table.add_row("unknown, then resolved by asking", f"{findings.unknown_resolved:,}", "")
    same = Text("the same", "green") if findings.money_after == findings.money_before else Text("DIFFERS", "bold red")
    table.add_row("money before", money(findings.money_before), "")
    table.add_row("money after", money(findings.money_after), same)
    table.add_row("longest block", f"{findings.longest_block_s:.1f} s", "what a bystander waited for a row in doubt")
    return table


def verdict(findings: Findings) -> RenderableType:
    """The last word, as wide as the terminal."""
    atomic = not findings.differences
    word = "ATOMIC" if atomic else "NOT ATOMIC"
    words = "every transfer happened in both databases, or in neither" if atomic else "see the differences above"
    line = Text(f"{word}   {words}", justify="center")
    return Padding(line, (1, 0), style="bold white on green4" if atomic else "bold white on red3", expand=True)


def differing(findings: Findings) -> RenderableType:
    """Everything that contradicts atomicity."""
    return Group(*(Text(f"✗ {difference}", "bold red") for difference in findings.differences))


def whither(kept: str) -> RenderableType:
    """Where to go next.

    Args:
        kept: the folder with logs and data, when it was kept.
    """
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_row("README.md", "your first transaction, in a service of your own")
    grid.add_row("examples/bank/", "the bank that you have just seen, in ordinary psycopg")
    grid.add_row("docs/", "why it works, and what it does not promise")
    grid.add_row("handfast chaos list", "every other way to die, one at a time")
    if kept:
        grid.add_row(kept, "the logs and data of this run, as you wished")
    return grid
