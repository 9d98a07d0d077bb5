"""A crash, as the person before the terminal sees it: who is in doubt, who is blocked, who waits, and for how long.

One picture for the whole scene, so that the reader sees the same rows hang and then heal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chaos.bank_stack import SERVICES, PreparedBranch
from chaos.demo.transfers import Fate
from chaos.demo.writer import Writer
from handfast.xid import Xid

ROWS_MAX = 8
SHORT_GTRID = 11

_IN_DOUBT = "bold magenta"
_FATES = {
    Fate.COMMITTED: Text("COMMITTED: in the log", "green"),
    Fate.ABORTED: Text("ROLLED BACK: not in the log", "yellow"),
}


@dataclass
class Scene:
    """What is to be seen now; the story changes it, the screen draws it.

    Args:
        victim: the name of the killed process.
        branches: the branches in doubt, as the databases showed them after the crash.
        writer: the bystander; None before there is one.
        clients: what the applications are up to.
        process: what the killed process is up to.
        fates: what the transactions turned out to be, by gtrid.
    """

    victim: str
    branches: list[PreparedBranch]
    writer: Writer | None = None
    clients: Text = field(default_factory=Text)
    process: Text = field(default_factory=Text)
    fates: dict[str, Fate] = field(default_factory=dict)

    @property
    def gtrids(self) -> list[str]:
        """The transactions that have a branch in doubt, oldest first."""
        return list(dict.fromkeys(gtrid_of(branch) for branch in self.branches))

    def draw(self) -> RenderableType:
        """The scene at this moment."""
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim", no_wrap=True)
        facts.add_column()
        if self.writer is not None:
            facts.add_row("writer", _writing(self.writer))
        for name, text in (("clients", self.clients), (self.victim, self.process)):
            if text.plain:
                facts.add_row(name, text)
        return Group(self._in_doubt(), facts)

    def _in_doubt(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
        table.add_column("transaction", no_wrap=True)
        for service in SERVICES:
            table.add_column(f"{service} database", no_wrap=True)
        table.add_column("outcome", no_wrap=True)
        for gtrid in self.gtrids[:ROWS_MAX]:
            cells = [self._branch(gtrid, service) for service in SERVICES]
            table.add_row(_short(gtrid), *cells, _FATES.get(self.fates.get(gtrid, Fate.UNKNOWN), Text("?", _IN_DOUBT)))
        if rest := self.gtrids[ROWS_MAX:]:
            table.add_row(f"and {len(rest)} more", "", "", self._ends(rest), style="dim")
        return table

    def _ends(self, gtrids: list[str]) -> str:
        """How many ended how, of those for which there is no room."""
        ends = Counter(self.fates[gtrid].value for gtrid in gtrids if gtrid in self.fates)
        return ", ".join(f"{number} {fate}" for fate, number in ends.most_common())

    def _branch(self, gtrid: str, service: str) -> Text:
        found = next((one for one in self.branches if gtrid_of(one) == gtrid and one.database == service), None)
        if found is None:
            return Text("–", "dim")
        row = f"account {found.accounts[0]}" if found.accounts else "a row"
        return Text(f"{row}: free", "dim") if gtrid in self.fates else Text(f"{row}: LOCKED", _IN_DOUBT)


def gtrid_of(branch: PreparedBranch) -> str:
    """The branch's transaction; its plain name when it is none of ours."""
    xid = Xid.from_gid(branch.gid)
    return xid.gtrid if xid else branch.gid


def _short(gtrid: str) -> str:
    return "…" + gtrid[-SHORT_GTRID:]


def _writing(writer: Writer) -> Text:
    if writer.ended:
        state = Text(f"✓ written, after {writer.waited_s:.1f} s", "green")
    else:
        blocked = (f"blocked for {writer.waited_s:4.1f} s", "bold red")
        state = Text.assemble(blocked, ("  by no living session: pg_blocking_pids() is {0}", "dim"))
    return Text.assemble((writer.statement, "bold"), "\n", state)
