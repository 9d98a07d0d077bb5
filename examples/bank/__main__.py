"""`python -m examples.bank accounts` and `python -m examples.bank ledger`."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Annotated, Any

import uvloop
from cyclopts import App, Parameter

from examples.bank import accounts, ledger
from examples.bank.service import Settings, serve

Flags = Annotated[Settings, Parameter(name="*")]

app = App(name="python -m examples.bank", help="Run one of the bank's services until it is told to stop.")


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a service on uvloop: any loop will do, and on this one each message costs less."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


@app.command(name="accounts")
def run_accounts(*, settings: Flags) -> None:
    """Run the accounts service: customers' money."""
    run(serve("accounts", accounts.register, settings))


@app.command(name="ledger")
def run_ledger(*, settings: Flags) -> None:
    """Run the ledger service: merchants' money."""
    run(serve("ledger", ledger.register, settings))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app()
