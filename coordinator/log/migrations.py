"""Steps from an older schema to the current one, and the book of those that a log has had.

Each step runs once, in a transaction with the line in the book that says so. The book is the table of that name which
sqlite-utils keeps, and is read and written as it does: logs made by earlier versions of Handfast have theirs from it.
Those forty lines are here because importing the library took longer than all else that opening a log takes, just when
branches wait in doubt.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

Step = Callable[[sqlite3.Connection], None]

TABLE = "_sqlite_migrations"
_CREATE = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT)",
    f"CREATE UNIQUE INDEX IF NOT EXISTS idx_{TABLE}_migration_set_name ON {TABLE} (migration_set, name)",
)
_NOTE = f"""
    INSERT INTO {TABLE} (migration_set, name, applied_at) VALUES (?, ?, strftime('%Y-%m-%d %H:%M:%f+00:00', 'now'))
"""


class Migrations:
    """The steps of one kind of file, in order.

    Args:
        name: distinguishes them from those of another application in the same file.
    """

    migrations_table = TABLE

    def __init__(self, name: str) -> None:
        self.name = name
        self._steps: dict[str, Step] = {}

    @property
    def names(self) -> list[str]:
        """All that are known here."""
        return list(self._steps)

    def step(self, step: Step) -> Step:
        """Add the next step, under its function's name."""
        self._steps[step.__name__] = step
        return step

    def applied(self, connection: sqlite3.Connection) -> list[str]:
        """Those that a file has had, in order; writes nothing."""
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (TABLE,))
        if there.fetchone() is None:
            return []
        rows = connection.execute(f"SELECT name FROM {TABLE} WHERE migration_set = ? ORDER BY id", (self.name,))
        return [name for (name,) in rows]

    def apply(self, connection: sqlite3.Connection, *, stop_before: str | None = None) -> None:
        """Take the steps that a file has not had.

        Args:
            connection: in autocommit mode.
            stop_before: the first one not to take; None takes all.

        Raises:
            Whatever a step raises; it is undone then, and those before it stand.
        """
        for statement in _CREATE:
            connection.execute(statement)
        applied = self.applied(connection)
        for name, step in self._steps.items():
            if name == stop_before:
                return
            if name not in applied:
                self._take(connection, name, step)

    def _take(self, connection: sqlite3.Connection, name: str, step: Step) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            step(connection)
            connection.execute(_NOTE, (self.name, name))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
