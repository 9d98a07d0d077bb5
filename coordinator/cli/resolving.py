"""`handfast resolve`: end, retry or forget a transaction by hand, after a look at it and a yes."""

from __future__ import annotations

import getpass
import socket
import sys
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Group, Parameter
from rich.text import Text

from coordinator.cli.admin import DEFAULT_TARGET, Admin, Switch, Target, connect
from coordinator.cli.exit_codes import Exit
from coordinator.cli.output import answer, console
from coordinator.cli.show_transactions import one, summary
from handfast.catalog import HandfastFault
from handfast.clock import unix_ms
from handfast.frames import CallFailed
from handfast.v1 import admin_pb2

_ACTIONS = {
    "commit": (admin_pb2.RESOLVE_ACTION_COMMIT, "committing", "The branches still in doubt will be committed."),
    "rollback": (admin_pb2.RESOLVE_ACTION_ROLLBACK, "rolling back", "The branches still in doubt will be rolled back."),
    "retry_now": (admin_pb2.RESOLVE_ACTION_RETRY_NOW, "retrying", ""),
    "forget": (
        admin_pb2.RESOLVE_ACTION_FORGET,
        "forgetting",
        "What is remembered of it will be dropped, its heuristic outcome included.",
    ),
}
_HEURISTIC_WARNING = "It will be done even against the decision. Databases may then disagree for good."


def _one_action(arguments: Any) -> None:
    """Refuse a command line that names no action, or several."""
    if sum(bool(argument.value) for argument in arguments if argument.has_tokens) != 1:
        raise ValueError("name one of --commit, --rollback, --retry-now and --forget")


ACTION = Group("Action (one of them)", validator=_one_action, sort_key=1)


@Parameter(name="*")
@dataclass(frozen=True)
class Action:
    """What to do; the validator of the group sees to it that one is chosen."""

    commit: Annotated[bool, Switch(help="Commit the branches still in doubt.", group=ACTION)] = False
    rollback: Annotated[bool, Switch(help="Roll the transaction back.", group=ACTION)] = False
    retry_now: Annotated[
        bool,
        Switch(help="Send now what waits for its next retry; asks no confirmation.", group=ACTION),
    ] = False
    forget: Annotated[
        bool,
        Switch(help="Drop what is remembered of it, its heuristic outcome included.", group=ACTION),
    ] = False

    @property
    def name(self) -> str:
        """The chosen one."""
        return next(name for name in _ACTIONS if getattr(self, name))


NO_ACTION = Action()


async def resolve_command(
    gtrid: Annotated[str, Parameter(help="The transaction.")],
    /,
    *,
    action: Action = NO_ACTION,
    heuristic: Annotated[
        bool,
        Switch(help="Do it even against the decision; recorded as a heuristic outcome."),
    ] = False,
    reason: Annotated[str, Parameter(help="Why, for the log.", show_default=False)] = "",
    yes: Annotated[bool, Switch(help="Don't ask; needed where nobody can answer.")] = False,
    target: Target = DEFAULT_TARGET,
) -> int:
    """Commit, roll back, retry or forget a transaction by hand.

    The coordinator writes who asked, when and why into its log. A resolution against the decision is refused without
    --heuristic. Without --yes the transaction is shown and a confirmation asked for; where standard input is no
    terminal, or with --json, nothing is done without --yes.
    """
    kind, gerund, effect = _ACTIONS[action.name]
    if heuristic and not (action.commit or action.rollback):
        raise HandfastFault("OPTIONS_UNFIT", problem="--heuristic goes with --commit or --rollback")
    asks = not (yes or action.retry_now)
    if asks and (target.json or not sys.stdin.isatty()):
        raise HandfastFault("CONFIRMATION_MISSING", gtrid=gtrid, action=f"{gerund} {gtrid}")
    async with connect(target) as admin:
        if asks:
            await _show(admin, gtrid)
            if not _confirmed(f"{effect} {_HEURISTIC_WARNING if heuristic else ''}".strip()):
                raise HandfastFault("CONFIRMATION_REFUSED", gtrid=gtrid, action=f"{gerund} {gtrid}")
        request = admin_pb2.ResolveRequest(
            gtrid=gtrid, action=kind, heuristic=heuristic, operator=operator(), reason=reason
        )
        response = await admin.ask(admin.calls.Resolve, request)
    answer(response, as_json=target.json, render=lambda: summary(response.transaction, unix_ms()))
    if not target.json:
        console().print(Text(f"✓ {response.done}", "green"))
    return Exit.OK


def operator() -> str:
    """Who runs the command, for the coordinator's log: user@machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"  # a user id without a name, as containers have
    return f"{user}@{socket.gethostname()}"


async def _show(admin: Admin, gtrid: str) -> None:
    """Show what is about to be changed; an orphan is unknown to the coordinator and can be resolved all the same."""
    errors = console(errors=True)
    try:
        response = await admin.ask(admin.calls.GetTransaction, admin_pb2.GetTransactionRequest(gtrid=gtrid))
    except CallFailed as failure:
        if failure.code != "TRANSACTION_UNKNOWN":
            raise
        errors.print(Text(f"The coordinator remembers nothing of {gtrid}.", "yellow"))
    else:
        errors.print(one(response.transaction, unix_ms()))


def _confirmed(effect: str) -> bool:
    errors = console(errors=True)
    errors.print()
    errors.print(Text(effect, "bold yellow"))
    errors.print("Type yes to go on: ", end="")
    return sys.stdin.readline().strip().lower() == "yes"
