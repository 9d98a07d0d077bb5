"""A log from before records had their place in a chain: what is there is taken in, and damage is not blessed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.log.chain import read_head
from coordinator.log.chained import chained
from coordinator.log.identity import Life
from coordinator.log.records import Identity, LoggedTransaction
from coordinator.log.rows import decision_row, end_row, participant_row, resolution_row
from coordinator.log.schema import migrations
from coordinator.log.walk import Walk
from tests.conformance.decision_logs import (
    COORDINATOR_ID,
    DAY_MS,
    answer_of,
    commit,
    decide,
    ended,
    gtrid,
    participant,
    resolution,
)
from tests.unit.log.sqlite_logs import fault_at_open, opened, sql, sqlite_log

ORDER_OF_DECISIONS = (5, 2, 9)
"""The numbers of the transactions in the old log; 9 has not ended. Earlier ones had been dropped."""


def make_old_log(path: Path, *, without_lives: bool = False) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrations.apply(connection, stop_before="m002_lives" if without_lives else "m003_chain")
        for seq, number in zip((40, 41, 43), ORDER_OF_DECISIONS, strict=True):
            values, _, crc = decision_row(commit(number))
            connection.execute(
                "INSERT INTO decision VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, NULL)", (seq, *values, crc)
            )
        for number in (2, 5):
            (outcome, ended_unix_ms, evidence, about), _, crc = end_row(ended(number))
            update = "UPDATE decision SET outcome = ?, ended_unix_ms = ?, evidence = ?, end_crc = ? WHERE gtrid = ?"
            connection.execute(update, (outcome, ended_unix_ms, evidence, crc, about))
        connection.execute("INSERT INTO participant VALUES (?, ?, ?, ?, ?, ?)", participant_row(A_PARTICIPANT)[0])
        connection.execute(
            "INSERT INTO resolution VALUES (7, ?, ?, ?, ?, ?, ?, ?, ?)", resolution_row(resolution(gtrid(2)))[0]
        )
        life = Life(COORDINATOR_ID, 3, DAY_MS)
        connection.execute("INSERT INTO coordinator VALUES (?, ?, ?, ?)", (COORDINATOR_ID, 3, DAY_MS, life.crc()))
        if not without_lives:
            connection.execute("INSERT INTO life VALUES (3, 77)")
    return path


A_PARTICIPANT = participant("ledger", "a", "h:1")


async def test_an_older_log_is_taken_in_with_everything_in_it(tmp_path: Path) -> None:
    async with opened(sqlite_log(make_old_log(tmp_path / "old.db"))) as log:
        assert [known.decision for known in log.recent(0)] == [commit(9), commit(2), commit(5)]
        assert log.lookup(gtrid(2)) == LoggedTransaction(commit(2), ended(2))
        assert [known.decision for known in log.unended()] == [commit(9)]
        assert log.participants() == [A_PARTICIPANT]
        assert log.resolutions(gtrid(2)) == [resolution(gtrid(2))]
        assert log.horizon_unix_ms == DAY_MS
        assert [log.life_started_unix_ms(epoch) for epoch in (2, 3, 4)] == [None, 77, 1]


async def test_the_chain_says_up_to_where_it_vouches_only_from_now_on(tmp_path: Path) -> None:
    path = make_old_log(tmp_path / "old.db")
    async with opened(sqlite_log(path)) as log:
        await decide(log, commit(10))
    with sql(path) as connection:
        head = read_head(connection)
        records = list(chained(connection))
    assert list(Walk().along(records, head)) == []
    kinds = [record.kind for record in records]
    assert kinds == ["decision"] * 3 + ["end"] * 2 + [
        "participant",
        "resolution",
        "life",
        "checkpoint",
        "life",
        "decision",
    ]
    assert (head.adopted_seq, head.seq) == (9, 11)


async def test_a_log_from_before_lives_were_kept_keeps_them_from_then_on(tmp_path: Path) -> None:
    log = sqlite_log(make_old_log(tmp_path / "old.db", without_lives=True))
    assert await log.open() == Identity(COORDINATOR_ID, 4)
    assert [log.life_started_unix_ms(epoch) for epoch in (3, 4)] == [None, 1]
    await log.close()
    assert (await log.open()).epoch == 5
    await log.close()


async def test_an_older_log_goes_on_as_any_other(tmp_path: Path) -> None:
    path = make_old_log(tmp_path / "old.db")
    async with opened(sqlite_log(path)) as log:
        assert await answer_of(lambda told: log.forget_before(2 * DAY_MS, told)) == 2
        assert [known.decision for known in log.recent(0)] == [commit(9)]
    async with opened(sqlite_log(path)) as log:
        assert log.horizon_unix_ms == 2 * DAY_MS


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("decision = 'abort'", f"the decision of {gtrid(2)}"),
        ("outcome = 'aborted'", f"the end of {gtrid(2)}"),
    ],
)
async def test_damage_in_an_older_log_is_named_and_the_log_left_as_it_was(
    tmp_path: Path, damage: str, named: str
) -> None:
    path = make_old_log(tmp_path / "old.db")
    with sql(path) as connection:
        connection.execute(f"UPDATE decision SET {damage} WHERE gtrid = '{gtrid(2)}'")
    fault = await fault_at_open(sqlite_log(path))
    assert (fault.code, fault.gtrid) == ("LOG_RECORD_DAMAGED", gtrid(2))
    assert named in fault.message
    with sql(path) as connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(decision)")]
        (kept,) = connection.execute("SELECT count(*) FROM decision").fetchone()
    assert (columns[-1], kept) == ("end_crc", 3)


async def test_a_horizon_that_went_back_with_its_checksum_made_anew_stops_the_start(tmp_path: Path) -> None:
    path = make_old_log(tmp_path / "old.db")
    async with opened(sqlite_log(path)):
        pass
    lower = Life(COORDINATOR_ID, 4, 0)
    with sql(path) as connection:
        connection.execute("UPDATE coordinator SET horizon_unix_ms = 0, crc = ?", (lower.crc(),))
    fault = await fault_at_open(sqlite_log(path))
    assert (fault.code, "the horizon is 0" in fault.message) == ("LOG_CHAIN_BROKEN", True)
