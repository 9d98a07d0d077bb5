"""The report on branches in doubt: why each is there, what it blocks, and the command that ends it."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from coordinator.cli.show_status import facts
from coordinator.cli.words import NOTHING, clock_time, coloured, count, duration, transaction_state
from handfast.v1 import admin_pb2, participant_pb2


def indoubt(response: admin_pb2.ListInDoubtResponse, command_suffix: str = "") -> RenderableType:
    """Each branch in doubt, the oldest first, then whom the coordinator could not ask.

    Args:
        response: what the coordinator found.
        command_suffix: what each command needs at its end to reach the same coordinator, for example
            ``" --address db1:7400"``.
    """
    parts: list[RenderableType] = []
    for found in response.branches:
        parts += [*_branch(found, command_suffix), Text()]
    parts.append(_conclusion(response))
    for finding in response.unreachable:
        parts.append(Text.assemble(("not asked  ", "bold red"), (finding.subject, "bold"), f": {finding.found}"))
        if finding.mend:
            parts.append(Text(f"           mend: {finding.mend}"))
    return Group(*parts)


def _branch(found: admin_pb2.InDoubtBranch, command_suffix: str) -> list[RenderableType]:
    branch = found.branch
    state = transaction_state(found.state)
    heading = Text.assemble(
        ("? ", "bold magenta"), (branch.bqual, "bold magenta"), "  in doubt for ", (duration(branch.age_ms), "bold")
    )
    standing = coloured(state) if state != NOTHING else Text(_unknown(found), "yellow")
    rows: list[tuple[str, RenderableType]] = [
        ("transaction", Text.assemble((branch.gtrid, "bold"), "  ", standing)),
        ("why", found.why),
        ("since", clock_time(branch.prepared_unix_ms)),
        ("blocks", Text("not known", "yellow") if found.not_asked else _blocks(branch)),
    ]
    if branch.blocked:
        rows.append(("waiting", _sessions(branch)))
    rows.append(("where", f"database {branch.database or NOTHING}, owner {branch.owner or NOTHING}"))
    rows.append(("gid", branch.gid))
    todo = ("  SQL          ", found.command) if found.foreign else ("  resolve      ", found.command + command_suffix)
    command = Text.assemble((todo[0], "dim"), (todo[1], "bold"), no_wrap=True)
    return [Rule(heading, align="left", style="magenta"), Padding(facts(*rows), (0, 0, 0, 2)), command]


def _unknown(found: admin_pb2.InDoubtBranch) -> str:
    return "NOT OURS: another coordinator's" if found.foreign else "not known to the coordinator"


def _blocks(branch: participant_pb2.PreparedBranch) -> Text:
    held = count(branch.locks_held, "lock")
    waiting = count(len(branch.blocked), "session waits", "sessions wait") if branch.blocked else "nobody waits"
    vacuum = f"vacuum held back by {count(branch.xmin_age, 'transaction id')}"
    text = Text.assemble(held, ", ", (waiting, "bold red" if branch.blocked else "green"))
    return text.append(f", {vacuum}") if branch.xmin_age else text


def _sessions(branch: participant_pb2.PreparedBranch) -> Table:
    sessions = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim", border_style="dim")
    sessions.add_column("pid", justify="right", no_wrap=True)
    sessions.add_column("for", justify="right", no_wrap=True, style="red")
    sessions.add_column("statement", overflow="fold")
    for session in sorted(branch.blocked, key=lambda one: -one.waiting_ms):
        sessions.add_row(str(session.pid), duration(session.waiting_ms), session.statement)
    return sessions


def _conclusion(response: admin_pb2.ListInDoubtResponse) -> Text:
    if not response.branches:
        asked = " among the participants that could be asked" if response.unreachable else ""
        return Text(f"✓ No branch is in doubt{asked}.", "yellow" if response.unreachable else "green")
    foreign = sum(found.foreign for found in response.branches)
    others = f" ({foreign:,} of other coordinators)" if foreign else ""
    waiting = sum(len(found.branch.blocked) for found in response.branches)
    blocked = f"; {count(waiting, 'session waits', 'sessions wait')} for them" if waiting else ""
    return Text(f"{count(len(response.branches), 'branch', 'branches')} in doubt{others}{blocked}.", "bold magenta")
