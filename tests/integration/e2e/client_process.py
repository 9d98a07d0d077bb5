"""A client that can be killed: it does the work of one payment, says so, and then waits for ever, or commits."""

import asyncio
import sys

import handfast
from examples.bank.client import Bank, Payment, credit_request, withdraw_request

TIMEOUT_S = 4


async def main(how: str, transfer: str, customer: str, merchant: str, cents: str, *addresses: str) -> None:
    """Args: ``work-only`` or ``commit``, the payment, and ``name=host:port`` of coordinator, accounts and ledger."""
    payment = Payment(transfer, int(customer), int(merchant), int(cents))
    at = dict(address.split("=") for address in addresses)
    async with handfast.connect(at["coordinator"]) as tm:
        async with Bank(tm, accounts=at["accounts"], ledger=at["ledger"]) as bank:
            async with tm.transaction(timeout=TIMEOUT_S):
                await bank.accounts.Withdraw(withdraw_request(payment))
                await bank.ledger.Credit(credit_request(payment))
                sys.stdout.write("work is done\n")
                sys.stdout.flush()
                if how == "work-only":
                    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
