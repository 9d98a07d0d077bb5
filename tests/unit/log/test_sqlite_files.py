"""What a SQLite log refuses to open, with the reason; and that it harms nothing by trying."""

import errno
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.log.files import QUICK_CHECK_BYTES_MAX, open_files
from coordinator.log.locking import LogLock
from coordinator.log.schema import migrations
from handfast.catalog import HandfastFault
from tests.conformance.decision_logs import COORDINATOR_ID, commit, decide, flush
from tests.unit.log.sqlite_logs import beside, fault_at_open, opened, sql, sqlite_log

NOBODY = 65534


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    """A closed log with one transaction in it."""
    path = tmp_path / "handfast.db"
    async with opened(sqlite_log(path)) as filled:
        await decide(filled, commit(1))
    return path


@pytest.fixture
def unprivileged_folder() -> Iterator[Path]:
    """A folder of a user whom file permissions bind; the test runs as that user."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            Path(folder).chmod(0o700)
    finally:
        os.seteuid(user)


def fault_of_open_files(path: Path) -> HandfastFault:
    with pytest.raises(HandfastFault) as caught:
        open_files(path, make_coordinator_id=lambda: COORDINATOR_ID, unix_ms=lambda: 1)
    return caught.value


# -- the place ---------------------------------------------------------------------------------------------------------


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    fault = await fault_at_open(sqlite_log(tmp_path / "missing" / "handfast.db"))
    assert (fault.code, "missing does not exist" in fault.message) == ("LOG_PATH_UNUSABLE", True)


async def test_a_folder_is_no_log(tmp_path: Path) -> None:
    fault = await fault_at_open(sqlite_log(tmp_path))
    assert (fault.code, "it is a folder" in fault.message) == ("LOG_PATH_UNUSABLE", True)
    assert not beside(tmp_path, ".lock").exists()


async def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fault = await fault_at_open(sqlite_log(tmp_path / "file" / "handfast.db"))
    assert fault.code == "LOG_PATH_UNUSABLE"


async def test_a_pipe_is_no_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "handfast.db")
    fault = await fault_at_open(sqlite_log(tmp_path / "handfast.db"))
    assert (fault.code, "no regular file" in fault.message) == ("LOG_PATH_UNUSABLE", True)


def test_a_folder_without_write_permission_is_unusable(unprivileged_folder: Path) -> None:
    unprivileged_folder.chmod(0o500)
    fault = fault_of_open_files(unprivileged_folder / "handfast.db")
    assert (fault.code, "Permission denied" in fault.message) == ("LOG_PATH_UNUSABLE", True)


def test_a_read_only_file_is_unusable_and_unlocked_afterwards(unprivileged_folder: Path) -> None:
    log = unprivileged_folder / "handfast.db"
    open_files(log, make_coordinator_id=lambda: COORDINATOR_ID, unix_ms=lambda: 1).close()
    log.chmod(0o400)
    fault = fault_of_open_files(log)
    assert (fault.code, "Permission denied" in fault.message) == ("LOG_PATH_UNUSABLE", True)
    lock = LogLock(log)
    lock.acquire(now_unix_ms=1)
    lock.release()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_a_log_whose_name_may_be_lost_with_the_power_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """SQLite forces the folder of a new file too, and takes no notice when that fails."""
    forced: list[int] = []

    def fsync(descriptor: int) -> None:
        assert stat.S_ISDIR(os.fstat(descriptor).st_mode)
        forced.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    fault = await fault_at_open(sqlite_log(tmp_path / "handfast.db"))
    assert (fault.code, len(forced)) == ("LOG_PATH_UNUSABLE", 1)
    assert os.strerror(number) in fault.message
    monkeypatch.undo()
    async with opened(sqlite_log(tmp_path / "handfast.db")) as log:
        await decide(log, commit(1))
        assert log.lookup(commit(1).gtrid) is not None


async def test_a_file_system_that_can_not_force_a_folder_holds_a_log_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fsync)
    async with opened(sqlite_log(tmp_path / "handfast.db")) as log:
        await decide(log, commit(1))
        assert log.lookup(commit(1).gtrid) is not None


async def test_names_with_special_characters_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a log?mode=memory#%41.db"
    async with opened(sqlite_log(path)) as log:
        await decide(log, commit(1))
        assert len(log.recent(0)) == 1
    assert path.stat().st_size > 0


# -- damage ------------------------------------------------------------------------------------------------------------


async def test_a_file_that_is_not_sqlite_s_is_damaged_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    path.write_text("decisions, decisions\n" * 500)
    before = path.read_bytes()
    assert (await fault_at_open(sqlite_log(path))).code == "LOG_CORRUPT"
    assert path.read_bytes() == before


async def test_a_mangled_page_is_found_at_open(log: Path) -> None:
    with log.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 3)
    assert (await fault_at_open(sqlite_log(log))).code == "LOG_CORRUPT"


async def test_a_truncated_file_is_found_at_open(log: Path) -> None:
    os.truncate(log, 3 * 4096)
    assert (await fault_at_open(sqlite_log(log))).code == "LOG_CORRUPT"


async def test_a_missing_table_is_damage(log: Path) -> None:
    with sql(log) as connection:
        connection.execute("DROP TABLE coordinator")
    assert (await fault_at_open(sqlite_log(log))).code == "LOG_CORRUPT"


async def test_a_log_gone_from_beside_its_write_ahead_log_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    beside(path, "-wal").write_bytes(b"decisions")
    fault = await fault_at_open(sqlite_log(path))
    assert (fault.code, "write-ahead log" in fault.message) == ("LOG_CORRUPT", True)
    assert beside(path, "-wal").exists()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE coordinator SET epoch = epoch - 1",
        "UPDATE coordinator SET coordinator_id = 'aaaaaaaa'",
        "UPDATE coordinator SET horizon_unix_ms = 1",
        "DELETE FROM coordinator",
        "INSERT INTO coordinator SELECT * FROM coordinator",
    ],
)
async def test_a_changed_identity_is_damage(log: Path, damage: str) -> None:
    with sql(log) as connection:
        connection.execute(damage)
    assert (await fault_at_open(sqlite_log(log))).code == "LOG_CORRUPT"


# -- whose it is -------------------------------------------------------------------------------------------------------


async def test_a_log_of_another_coordinator_is_refused_and_keeps_its_epoch(log: Path) -> None:
    fault = await fault_at_open(sqlite_log(log, expected_coordinator_id="aaaaaaaa"))
    assert fault.code == "LOG_OF_ANOTHER"
    assert COORDINATOR_ID in fault.message
    reopened = sqlite_log(log, expected_coordinator_id=COORDINATOR_ID)
    assert (await reopened.open()).epoch == 2
    await reopened.close()


async def test_no_log_is_made_under_an_expected_id(tmp_path: Path) -> None:
    # citus 8855: with an inherited id and an empty log, every commit of the old coordinator would be presumed aborted
    path = tmp_path / "handfast.db"
    assert (await fault_at_open(sqlite_log(path, expected_coordinator_id=COORDINATOR_ID))).code == "LOG_OF_ANOTHER"
    assert not path.exists()


async def test_an_id_that_no_gtrid_can_begin_with_makes_no_log(tmp_path: Path) -> None:
    log = sqlite_log(tmp_path / "handfast.db", coordinator_id="NOT AN ID")
    with pytest.raises(ValueError, match="NOT AN ID"):
        await log.open()
    async with opened(sqlite_log(tmp_path / "handfast.db")) as made:
        assert made.recent(0) == []


async def test_another_application_s_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE decision (what TEXT)")
    before = path.read_bytes()
    fault = await fault_at_open(sqlite_log(path))
    assert (fault.code, "another application" in fault.message) == ("LOG_PATH_UNUSABLE", True)
    assert path.read_bytes() == before


async def test_an_empty_file_becomes_a_log(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    path.touch()
    log = sqlite_log(path)
    assert (await log.open()).epoch == 1
    await log.close()


# -- the schema --------------------------------------------------------------------------------------------------------


async def test_a_newer_schema_is_refused_with_both_versions_named(log: Path) -> None:
    with sql(log) as connection:
        values = (migrations.name, "m999_of_the_future", "2999-01-01")
        connection.execute(
            f"INSERT INTO {migrations.migrations_table} (migration_set, name, applied_at) VALUES (?, ?, ?)", values
        )
    fault = await fault_at_open(sqlite_log(log))
    assert fault.code == "LOG_SCHEMA_NEWER"
    assert "m999_of_the_future" in fault.message
    assert "m003_chain" in fault.message


async def test_a_crash_while_the_log_was_made_leaves_one_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # the first write of all; the tables come after it
    async with opened(sqlite_log(path)) as log:
        await decide(log, commit(1))
        assert len(log.unended()) == 1


# -- size --------------------------------------------------------------------------------------------------------------


async def make_damaged_log(path: Path, size_bytes: int) -> None:
    """Make a log of at least this size, with damage that only a check of the whole file finds."""
    async with opened(sqlite_log(path)) as filled:
        await flush(filled)
    with sql(path) as connection:
        connection.execute("CREATE TABLE ballast (bytes BLOB)")
        connection.execute("INSERT INTO ballast VALUES (zeroblob(?))", (size_bytes,))
        (page_count,) = connection.execute("PRAGMA page_count").fetchone()
    with path.open("r+b") as file:
        file.seek((page_count - 2) * 4096)
        file.write(b"\xff" * 4096)


async def test_a_small_log_is_checked_whole_at_open(tmp_path: Path) -> None:
    await make_damaged_log(tmp_path / "handfast.db", 1 << 20)
    assert (await fault_at_open(sqlite_log(tmp_path / "handfast.db"))).code == "LOG_CORRUPT"


async def test_a_large_log_is_not_read_through_at_open(tmp_path: Path) -> None:
    await make_damaged_log(tmp_path / "handfast.db", QUICK_CHECK_BYTES_MAX)
    async with opened(sqlite_log(tmp_path / "handfast.db")) as log:
        assert log.unended() == []
