"""Reading a log from outside: closed or in use, with few rights, and while somebody opens it."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordinator.log.migrations import TABLE
from coordinator.log.reading import read_log
from coordinator.log.schema import migrations
from coordinator.log.verifying import verify_log
from handfast.catalog import HandfastFault
from tests.conformance.decision_logs import commit, decide
from tests.unit.log.sqlite_logs import beside, opened, sql, sqlite_log

NOBODY = 65534


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    """A closed log with one decision."""
    path = tmp_path / "handfast.db"
    async with opened(sqlite_log(path)) as filled:
        await decide(filled, commit(1))
    return path


@contextmanager
def copied_where_only_reading_is_allowed(*files: Path) -> Iterator[Path]:
    """A folder with the files, and the rights of a user who may read them and no more."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in files:
            shutil.copy(file, folder)
            (folder / file.name).chmod(0o444)
        folder.chmod(0o555)
        if user == 0:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


def decisions(connection: sqlite3.Connection) -> int:
    ((count,),) = connection.execute("SELECT count(*) FROM decision").fetchall()
    return int(count)


def fault_of_reading(path: Path) -> str:
    with pytest.raises(HandfastFault) as caught:
        read_log(path, decisions)
    return caught.value.code


def test_a_closed_log_is_read_once(log: Path) -> None:
    reads: list[int] = []
    read_log(log, lambda connection: reads.append(decisions(connection)))
    assert reads == [1]


def test_a_closed_log_that_somebody_opens_meanwhile_is_read_again(log: Path) -> None:
    seen: list[int] = []

    def read(connection: sqlite3.Connection) -> int:
        seen.append(decisions(connection))
        if len(seen) == 1:
            with sql(log) as other:
                other.execute("DELETE FROM decision")
        return seen[-1]

    assert read_log(log, read) == 0
    assert seen == [1, 0]


async def test_a_log_in_use_is_read_as_of_one_moment(log: Path) -> None:
    async with opened(sqlite_log(log)) as used:
        await decide(used, commit(2))

        def read(connection: sqlite3.Connection) -> tuple[int, int]:
            before = decisions(connection)
            with sql(log) as other:
                other.execute("DELETE FROM decision WHERE gtrid = 'nobody'")
                other.execute("UPDATE decision SET client = 'somebody else'")
            ((changed,),) = connection.execute(
                "SELECT count(*) FROM decision WHERE client = 'somebody else'"
            ).fetchall()
            return before, changed

        assert read_log(log, read) == (2, 0)


def test_whoever_may_only_read_the_folder_can_verify_a_closed_log(log: Path) -> None:
    with copied_where_only_reading_is_allowed(log) as folder:
        assert verify_log(folder / log.name).findings == []


async def test_a_log_left_by_a_crash_can_t_be_read_where_nothing_can_be_written(log: Path) -> None:
    async with opened(sqlite_log(log)) as used:
        await decide(used, commit(2))
        with copied_where_only_reading_is_allowed(log, beside(log, "-wal")) as folder:
            assert fault_of_reading(folder / log.name) == "LOG_PATH_UNUSABLE"


def test_a_log_from_before_the_chain_is_not_called_broken(tmp_path: Path) -> None:
    with sql(tmp_path / "old.db") as connection:
        migrations.apply(connection, stop_before="m003_chain")
    assert fault_of_reading(tmp_path / "old.db") == "LOG_WITHOUT_CHAIN"


def test_a_log_from_the_future_is_not_called_broken(log: Path) -> None:
    with sql(log) as connection:
        connection.execute(
            f"INSERT INTO {TABLE} (migration_set, name, applied_at) VALUES (?, 'm999_of_the_future', '2999-01-01')",
            (migrations.name,),
        )
    assert fault_of_reading(log) == "LOG_SCHEMA_NEWER"
