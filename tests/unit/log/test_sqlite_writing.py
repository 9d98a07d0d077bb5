"""How the SQLite log writes: what a full disk does, how the write-ahead log stays small, what the statements cost."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.log.records import LoggedBranch
from coordinator.log.retention import DELETE_ENDED
from coordinator.log.sqlite import SELECT_ONE, SELECT_RECENT, SELECT_UNENDED, SqliteLog
from coordinator.log.store import LogRefused
from coordinator.log.writer import CHECKPOINT_PAGES
from coordinator.protocol.states import Decision
from tests.conformance.decision_logs import Answers, commit, decide, end, ended, gtrid, register
from tests.conformance.decision_logs import participant as a_participant
from tests.unit.log.sqlite_logs import beside, opened, sql, sqlite_log
from tests.waiting import eventually

LARGE = tuple(LoggedBranch(f"stock.{number}", "x" * 4096) for number in range(16))
"""Branches that do not fit into the pages that a log has already."""


def limit_pages(log: SqliteLog, pages: int) -> None:
    """Let the log's file grow to so many pages, as a disk of that size would. The writer must be idle."""
    assert log._files is not None
    log._files.writer.execute(f"PRAGMA max_page_count = {pages}")


async def test_a_full_disk_refuses_what_does_not_fit_and_the_log_goes_on(tmp_path: Path) -> None:
    async with opened(sqlite_log(tmp_path / "handfast.db")) as log:
        await decide(log, commit(1))
        limit_pages(log, 1)
        refused = await decide(log, replace(commit(2), branches=LARGE))
        assert isinstance(refused, LogRefused)
        assert "full" in str(refused)
        assert log.lookup(gtrid(2)) is None
        assert [known.decision for known in log.unended()] == [commit(1)]

        limit_pages(log, 1_000_000)
        assert await decide(log, replace(commit(2), branches=LARGE)) is Decision.COMMIT
        assert len(log.unended()) == 2


async def test_a_full_disk_refuses_the_whole_batch_but_not_the_one_after(tmp_path: Path) -> None:
    answers = Answers()
    async with opened(sqlite_log(tmp_path / "handfast.db")) as log:
        await decide(log, commit(1))
        limit_pages(log, 1)
        for number in range(10, 20):
            log.decide(replace(commit(number), branches=LARGE), answers.to(number))
        await eventually(lambda: len(answers.heard) == 10)
        assert {type(value) for value in answers.values()} == {LogRefused}
        assert await decide(log, commit(2)) is Decision.COMMIT  # fits into a page that is there


async def test_the_write_ahead_log_stays_small_under_load(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    wal = beside(path, "-wal")
    async with opened(sqlite_log(path)) as log:
        for number in range(CHECKPOINT_PAGES):
            await decide(log, commit(number))
        assert log.counters()["forces"] == CHECKPOINT_PAGES  # some five pages each
        assert wal.stat().st_size < 3 * CHECKPOINT_PAGES * 4096
    assert not wal.exists()  # closing moved all of it into the file


async def test_a_broken_log_leaves_its_files_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    broken: list[Exception] = []
    failures: list[Exception] = []

    def before_force(_: int) -> None:
        if failures:
            raise failures.pop()

    log = sqlite_log(path, on_broken=broken.append, before_force=before_force)
    await log.open()
    await decide(log, commit(1))
    failures.append(OSError("fsync failed"))
    before = path.read_bytes()
    log.decide(commit(2), lambda _: None)
    await eventually(lambda: broken != [])
    await log.close()
    assert path.read_bytes() == before
    assert beside(path, "-wal").stat().st_size > 0
    async with opened(sqlite_log(path)) as recovered:
        assert [known.decision for known in recovered.unended()] == [commit(1)]


async def test_a_thread_that_is_woken_for_what_it_has_written_already_goes_on(tmp_path: Path) -> None:
    """The loop's thread appends first and wakes afterwards; the last batch may have taken the record in between."""
    async with opened(sqlite_log(tmp_path / "handfast.db")) as log:
        writer = log._writer
        assert writer is not None
        writer._urgent = True
        writer._woken.put(None)
        await eventually(lambda: not writer._urgent)
        assert await asyncio.wait_for(decide(log, commit(1)), 5) is Decision.COMMIT


async def test_each_commit_is_forced(tmp_path: Path) -> None:
    async with opened(sqlite_log(tmp_path / "handfast.db")) as log:
        assert log._files is not None
        settings = {
            name: log._files.writer.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        }
        assert settings == {"journal_mode": "wal", "synchronous": 2}


async def test_reading_can_t_write(tmp_path: Path) -> None:
    async with opened(sqlite_log(tmp_path / "handfast.db")) as log:
        assert log._files is not None
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            log._files.reader.execute("DELETE FROM decision")


async def test_a_decision_that_stood_before_is_not_believed_when_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    broken: list[Exception] = []
    async with opened(sqlite_log(path, on_broken=broken.append)) as log:
        await decide(log, commit(1))
        with sql(path) as connection:
            connection.execute("UPDATE decision SET decision = 'abort'")
        answer = await decide(log, commit(1))
        assert not isinstance(answer, Decision)
        assert gtrid(1) in str(answer)
    assert broken == [answer]


@pytest.mark.parametrize(
    ("statement", "values", "plan"),
    [
        (SELECT_ONE, ("g",), ["SEARCH decision USING INDEX sqlite_autoindex_decision_1 (gtrid=?)"]),
        (SELECT_UNENDED, (), ["SEARCH decision USING INDEX decision_by_end (ended_unix_ms=?)"]),
        (SELECT_RECENT, (0, 10), ["SCAN decision"]),  # backwards by its key, and no further than the limit
        (
            DELETE_ENDED,
            (1, 10),
            [
                "SEARCH decision USING INTEGER PRIMARY KEY (rowid=?)",
                "LIST SUBQUERY 1",
                "SEARCH decision USING COVERING INDEX decision_by_end (ended_unix_ms<?)",
            ],
        ),
    ],
)
async def test_no_statement_sorts_or_reads_what_does_not_concern_it(
    tmp_path: Path, statement: str, values: tuple[object, ...], plan: list[str]
) -> None:
    async with opened(sqlite_log(tmp_path / "handfast.db")):
        pass
    with sql(tmp_path / "handfast.db") as connection:
        steps = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    assert [detail for *_, detail in steps] == plan


async def test_a_person_can_read_the_log_while_it_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    async with opened(sqlite_log(path)) as log:
        await decide(log, commit(1))
        await end(log, ended(1))
        await register(log, a_participant("ledger", "a", "h:1"))
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            shown = connection.execute("SELECT gtrid, decision, branches, outcome FROM decision").fetchall()
        assert shown == [(gtrid(1), "commit", '["accounts.7hx2k9qd", "1", "ledger.8b", "2"]', "committed")]
