"""A client to be killed: `python -m chaos.lone_client COORDINATOR ACCOUNTS LEDGER NAME ACCOUNT`.

It pays from and to ACCOUNT on both sides, prints its gtrid, and then thinks for ever; or, with ``--commit``, asks for
the commit at once. Nothing in it handles anything: it is killed with SIGKILL.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from cyclopts import App, Parameter

import handfast
from examples.bank.client import Bank
from examples.bank.v1 import accounts_pb2, ledger_pb2

CENTS = 100
_FOR_EVER_S = 3600.0

app = App(name="python -m chaos.lone_client", help="Pay once, to be killed meanwhile.")


@app.default
def main(
    coordinator: str,
    accounts: str,
    ledger: str,
    name: str,
    account: int,
    *,
    timeout: float = 3.0,
    commit: Annotated[bool, Parameter(negative="", help="Ask for the commit instead of thinking.")] = False,
) -> None:
    """Pay."""
    asyncio.run(_pay(coordinator, accounts, ledger, name, account, timeout_s=timeout, commit=commit))


async def _pay(
    coordinator: str, accounts: str, ledger: str, name: str, account: int, *, timeout_s: float, commit: bool
) -> None:
    withdraw = accounts_pb2.WithdrawRequest(account=account, amount=CENTS, transfer=name)
    credit = ledger_pb2.CreditRequest(account=account, amount=CENTS, transfer=name)
    async with handfast.connect(coordinator, client=name) as tm, Bank(tm, accounts=accounts, ledger=ledger) as bank:
        async with tm.transaction(timeout=timeout_s) as txn:
            await bank.accounts.Withdraw(withdraw)
            await bank.ledger.Credit(credit)
            print(f"gtrid {txn.gtrid}", flush=True)
            if not commit:
                await asyncio.sleep(_FOR_EVER_S)
    await asyncio.sleep(_FOR_EVER_S)


if __name__ == "__main__":
    app()
