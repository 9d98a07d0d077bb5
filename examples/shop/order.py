"""The application: `python -m examples.shop.order o-1 lamp`."""

import asyncio
import json
import os
import sys

import handfast


async def order(order_id: str, item: str) -> None:
    payload = json.dumps({"id": order_id, "item": item}).encode()
    async with handfast.connect(os.environ.get("HANDFAST_ADDRESS", "127.0.0.1:7400")) as tm:
        try:
            result = await tm.execute([("stock", "take", payload), ("orders", "place", payload)], timeout=5)
        except handfast.TransactionAborted as aborted:  # certainly nothing was done
            print(f"no order: {aborted.reason}")
        except handfast.HandfastError as problem:  # its message says whether anything may have been done
            sys.exit(f"{type(problem).__name__}: {problem}")
        else:
            print(f"{result.outcome}: {result.gtrid}")


if __name__ == "__main__":
    asyncio.run(order(*sys.argv[1:]))
