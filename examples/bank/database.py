"""A bank database at first start: the tables, and accounts with money in them."""

from pathlib import Path

import psycopg

_SCHEMA = Path(__file__).with_name("schema.sql").read_bytes()
_SEED = """
    INSERT INTO account (id, balance)
    SELECT id, %(balance)s FROM generate_series(1, %(accounts)s) AS id
    WHERE NOT EXISTS (SELECT FROM account)
"""
# Several instances of a service may start at once; the first makes the tables, the others find them. Any number does,
# so long as nothing else in the database uses it.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(2604)"


async def set_up(dsn: str, *, accounts: int, balance: int) -> None:
    """Make the tables, and the accounts when there are none. Does nothing to a database that is set up already.

    It must not wait for an account's row either: after a crash, rows may be locked by branches in doubt, which end only
    when this very service has started. That is why the seed looks before it inserts, for ON CONFLICT would wait.

    Args:
        dsn: the database.
        accounts: how many accounts to make, numbered from 1.
        balance: what each holds, in cents.

    Raises:
        psycopg.Error: the database can't be reached, or refuses.
    """
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(_ONE_AT_A_TIME)
        await connection.execute(_SCHEMA)
        await connection.execute(_SEED, {"accounts": accounts, "balance": balance})
