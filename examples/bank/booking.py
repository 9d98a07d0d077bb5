"""Moving money: the SQL that both services have in common. Nothing here knows of Handfast."""

from typing import Any

import psycopg
from psycopg.errors import CheckViolation

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Refused(Exception):
    """The bank says no. The transaction can only be rolled back."""


class InsufficientFunds(Refused):
    """The account holds less than what should leave it."""


class NoSuchAccount(Refused):
    """There is no account of this number."""


class AmountInvalid(Refused):
    """The amount is not above 0."""


async def take_out(connection: Connection, account: int, cents: int, transfer: str) -> int:
    """Take money out of an account.

    Args:
        connection: inside a transaction.
        account: the account's number.
        cents: how much, above 0.
        transfer: the transfer that this is one side of.

    Returns:
        What the account holds now, in cents.

    Raises:
        Refused: InsufficientFunds, NoSuchAccount or AmountInvalid.
    """
    return await _change(connection, account, -_checked(cents), transfer)


async def put_in(connection: Connection, account: int, cents: int, transfer: str) -> int:
    """Put money into an account; otherwise as ``take_out``."""
    return await _change(connection, account, _checked(cents), transfer)


def _checked(cents: int) -> int:
    if cents <= 0:
        raise AmountInvalid(f"an amount is above 0, not {cents}")
    return cents


async def _change(connection: Connection, account: int, cents: int, transfer: str) -> int:
    change = "UPDATE account SET balance = balance + %s WHERE id = %s RETURNING balance"
    try:
        row = await (await connection.execute(change, (cents, account))).fetchone()
    except CheckViolation:
        raise InsufficientFunds(f"account {account} holds less than {-cents}") from None
    if row is None:
        raise NoSuchAccount(f"there is no account {account}")
    line = "INSERT INTO journal (transfer, account, amount) VALUES (%s, %s, %s)"
    await connection.execute(line, (transfer, account, cents))
    return int(row[0])
