"""`handfast transactions list | show | watch`."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from coordinator.cli.admin import DEFAULT_TARGET, Target, connect
from coordinator.cli.exit_codes import EPILOGUE, Exit
from coordinator.cli.json_form import document
from coordinator.cli.output import answer, console, print_json
from coordinator.cli.show_transactions import change, listing, one
from handfast.clock import unix_ms
from handfast.v1 import admin_pb2, types_pb2

State = Literal["active", "preparing", "committing", "aborting", "committed", "aborted", "forgotten"]

transactions = App(name="transactions", help="List, show or watch transactions.", help_epilogue=EPILOGUE)


@transactions.command(name="list")
async def list_command(
    *,
    state: Annotated[
        list[State] | None,
        Parameter(
            help="Only this state; may be repeated. Without it, all that are open or ended recently.",
            negative="",
        ),
    ] = None,
    limit: Annotated[int, Parameter(help="How many at most.")] = 100,
    target: Target = DEFAULT_TARGET,
) -> int:
    """List transactions, the newest first."""
    states = [types_pb2.TransactionState.Value(f"TRANSACTION_STATE_{word.upper()}") for word in state or ()]
    async with connect(target) as admin:
        request = admin_pb2.ListTransactionsRequest(states=states, limit=limit)
        response = await admin.ask(admin.calls.ListTransactions, request)
    answer(response, as_json=target.json, render=lambda: listing(response, unix_ms()))
    return Exit.OK


@transactions.command(name="show")
async def show_command(
    gtrid: Annotated[str, Parameter(help="The transaction.")], /, *, target: Target = DEFAULT_TARGET
) -> int:
    """Show one transaction: votes, decision, attempts, next retry, errors, and its whole history."""
    async with connect(target) as admin:
        response = await admin.ask(admin.calls.GetTransaction, admin_pb2.GetTransactionRequest(gtrid=gtrid))
    answer(response.transaction, as_json=target.json, render=lambda: one(response.transaction, unix_ms()))
    return Exit.OK


@transactions.command(name="watch")
async def watch_command(
    gtrid: Annotated[str, Parameter(help="Only this transaction; without one, all of them.", show_default=False)] = "",
    /,
    *,
    count: Annotated[int | None, Parameter(help="Stop after so many changes; without it, go on until Ctrl-C.")] = None,
    target: Target = DEFAULT_TARGET,
) -> int:
    """Print a line at each change of a transaction's state, from now on.

    With --json each line is a JSON document. --timeout does not apply.
    """
    seen = 0
    lines = console()
    async with connect(target) as admin:
        request = admin_pb2.WatchTransactionsRequest(gtrid=gtrid)
        async for response in admin.watch(admin.calls.WatchTransactions, request):
            if target.json:
                print_json(document(response), one_line=True)
            else:
                lines.print(change(response, unix_ms()), soft_wrap=True)
            seen += 1
            if seen == count:
                break
    return Exit.OK
