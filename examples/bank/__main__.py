"""`python -m examples.bank accounts` and `python -m examples.bank ledger`."""

import asyncio
import logging
from typing import Annotated

from cyclopts import App, Parameter

from examples.bank import accounts, ledger
from examples.bank.service import Settings, serve

Flags = Annotated[Settings, Parameter(name="*")]

app = App(name="python -m examples.bank", help="Run one of the bank's services until it is told to stop.")


@app.command(name="accounts")
def run_accounts(*, settings: Flags) -> None:
    """Run the accounts service: customers' money."""
    asyncio.run(serve("accounts", accounts.register, settings))


@app.command(name="ledger")
def run_ledger(*, settings: Flags) -> None:
    """Run the ledger service: merchants' money."""
    asyncio.run(serve("ledger", ledger.register, settings))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app()
