"""What a start reads of its log, and how it says what is wrong there."""

from pathlib import Path

import pytest

from coordinator.log.checking import TAIL_RECORDS
from handfast.catalog import HandfastFault
from tests.conformance.decision_logs import answer_of, commit, decide, end, ended, flush, gtrid, participant, register
from tests.unit.log.sqlite_logs import change, fault_at_open, opened, sqlite_log


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    """A closed log: its life at position 1, decisions at 2 and 3, the end of the first at 4, a resolution at 5."""
    path = tmp_path / "handfast.db"
    async with opened(sqlite_log(path)) as filled:
        await decide(filled, commit(1))
        await decide(filled, commit(2))
        await end(filled, ended(1))
        await register(filled, participant("ledger", "a", "h:1"))
    return path


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("decision = 'abort'", f"the decision of {gtrid(1)} at position 2"),
        ("decision = CAST(x'ff' AS TEXT)", f"the decision of {gtrid(1)} at position 2"),
        ("decided_unix_ms = 2", f"the decision of {gtrid(1)} at position 2"),
        ("begun_unix_ms = 2", f"the decision of {gtrid(1)} at position 2"),
        ("client = 'till 4'", f"the decision of {gtrid(1)} at position 2"),
        ("branches = replace(branches, 'ledger', 'lodger')", f"the decision of {gtrid(1)} at position 2"),
        ("crc = crc + 1", f"the decision of {gtrid(1)} at position 2"),
        ("prev = zeroblob(32)", f"the decision of {gtrid(1)} at position 2"),
        ("prev = 7", f"the decision of {gtrid(1)} at position 2"),
        ("outcome = 'aborted'", f"the end of {gtrid(1)} at position 4"),
        ("ended_unix_ms = 2", f"the end of {gtrid(1)} at position 4"),
        ("evidence = 'none'", f"the end of {gtrid(1)} at position 4"),
        ("end_crc = end_crc + 1", f"the end of {gtrid(1)} at position 4"),
        ("end_prev = NULL", f"the end of {gtrid(1)} at position 4"),
    ],
)
async def test_a_new_record_that_fails_its_checksum_stops_the_start_and_is_named(
    log: Path, damage: str, named: str
) -> None:
    change(log, f"UPDATE decision SET {damage} WHERE seq = 2")
    fault = await fault_at_open(sqlite_log(log))
    assert (fault.code, fault.gtrid) == ("LOG_RECORD_DAMAGED", gtrid(1))
    assert f"{named} fails its checksum" in fault.message
    assert f"handfast log verify --log {log}" in fault.mend


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("UPDATE participant SET address = 'h:2'", "the participant of ledger.a at position 6"),
        ("UPDATE resolution SET operator = 'bob'", "the resolution of flush at position 5"),
        ("UPDATE life SET started_unix_ms = 5", "the life of epoch 1 at position 1"),
    ],
)
async def test_a_new_record_of_any_other_kind_is_named_too(log: Path, damage: str, named: str) -> None:
    change(log, damage)
    fault = await fault_at_open(sqlite_log(log))
    assert (fault.code, f"{named} fails its checksum" in fault.message) == ("LOG_RECORD_DAMAGED", True)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM decision WHERE seq = 2", "the record at position 2 is gone, after the life of epoch 1"),
        ("DELETE FROM participant", "the record at position 6 is gone"),
        ("DELETE FROM resolution", "the record at position 5 is gone"),
        ("UPDATE decision SET end_seq = NULL WHERE seq = 2", "the record at position 4 is gone"),
        ("UPDATE decision SET seq = 9 WHERE seq = 3", "fails its checksum"),
        ("UPDATE head SET seq = 5", "the row of the table head"),
        ("DELETE FROM head", "has 0 rows"),
        ("UPDATE coordinator SET epoch = 0", "fails the checksum"),
        ("DELETE FROM life", "the record at position 1 is gone"),
    ],
)
async def test_what_does_not_follow_stops_the_start(log: Path, damage: str, said: str) -> None:
    change(log, damage)
    fault = await fault_at_open(sqlite_log(log))
    assert fault.code in {"LOG_CHAIN_BROKEN", "LOG_RECORD_DAMAGED", "LOG_CORRUPT"}
    assert said in fault.message


async def test_a_start_that_is_stopped_leaves_the_epoch_as_it_was(log: Path) -> None:
    change(log, "UPDATE decision SET client = 'till 4' WHERE seq = 2")
    await fault_at_open(sqlite_log(log))
    change(log, "UPDATE decision SET client = 'till 3' WHERE seq = 2")
    repaired = sqlite_log(log)
    assert (await repaired.open()).epoch == 2
    await repaired.close()


async def make_long_log(path: Path) -> None:
    """Make a log whose first two transactions, one of them not ended, are older than what a start walks."""
    async with opened(sqlite_log(path)) as filled:
        await decide(filled, commit(1))
        await decide(filled, commit(2))
        await end(filled, ended(1))
        for number in range(3, 4 + TAIL_RECORDS):
            filled.decide(commit(number), lambda _: None)
        for number in range(3, 4 + TAIL_RECORDS):
            filled.end(ended(number))
        await flush(filled)


async def test_an_old_decision_that_branches_wait_for_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    await make_long_log(path)
    change(path, f"UPDATE decision SET decision = 'abort' WHERE gtrid = '{gtrid(2)}'")
    fault = await fault_at_open(sqlite_log(path))
    assert (fault.code, fault.gtrid) == ("LOG_RECORD_DAMAGED", gtrid(2))


async def test_an_old_ended_record_is_not_read_at_start_and_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    await make_long_log(path)
    change(path, f"UPDATE decision SET decision = 'abort' WHERE gtrid = '{gtrid(1)}'")
    async with opened(sqlite_log(path)) as damaged:
        for read in (lambda: damaged.lookup(gtrid(1)), lambda: damaged.recent(0)):
            with pytest.raises(HandfastFault) as caught:
                read()
            assert (caught.value.code, caught.value.gtrid) == ("LOG_RECORD_DAMAGED", gtrid(1))


async def test_a_damaged_record_beside_which_others_stay_is_not_dropped_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "handfast.db"
    await make_long_log(path)
    change(path, f"UPDATE decision SET client = 'x' WHERE gtrid = '{gtrid(1)}'")  # 2 is not ended and stays
    change(path, f"UPDATE decision SET prev = 5 WHERE gtrid = '{gtrid(3)}'")
    async with opened(sqlite_log(path)) as log:
        assert await answer_of(lambda told: log.forget_before(5, told)) == 3
        assert log.lookup(gtrid(5)) is not None
    (warned,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == f"the decision of {gtrid(1)} at position 2, which leaves the log, fails its checksum"
