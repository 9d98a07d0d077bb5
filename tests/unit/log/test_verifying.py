"""What `handfast log verify` and `export` see: every record as it was written, or what was done to it, by name."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.log_report import report_document
from coordinator.log.chain import END, GENESIS, read_head, sealed
from coordinator.log.exporting import export_log
from coordinator.log.rows import end_content
from coordinator.log.verifying import NotedHead, verify_log
from tests.architecture.source_tree import REPOSITORY
from tests.conformance.decision_logs import (
    abort,
    answer_of,
    commit,
    decide,
    ended,
    flush,
    gtrid,
    resolution,
)
from tests.unit.log.full_log import DECISIONS, fill_with_everything
from tests.unit.log.sqlite_logs import change, opened, sql, sqlite_log


def verify(log: Path, noted: str = "") -> dict[str, Any]:
    return report_document(log, verify_log(log, NotedHead.parse(noted) if noted else None))


def wrongs(log: Path) -> list[tuple[str, int | None, str | None]]:
    """What is wrong with a log, by kind, position and transaction."""
    found = verify(log)["findings"]
    assert all(finding["problem"] and finding["mend"] for finding in found)
    return [(finding["wrong"], finding["seq"], finding["gtrid"]) for finding in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "handfast.db"
    asyncio.run(fill_with_everything(path))
    return path


@pytest.fixture
def log(whole: Path, tmp_path: Path) -> Path:
    """A closed log: the life at position 1, the decision about transaction N at N + 1, then their ends."""
    return Path(shutil.copy(whole, tmp_path / "handfast.db"))


def test_the_json_counts_what_is_there_and_what_was_dropped(log: Path) -> None:
    found = verify(log)
    assert found["findings"] == []
    assert found["records"] == {
        "checkpoint": 1,
        "decision": DECISIONS - 5 + 1,
        "end": DECISIONS - 6 - 5,
        "life": 1,
        "participant": 1,
    }
    assert found["head"]["seq"] == sum(found["records"].values()) + found["dropped"]


# -- hands on the log --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        (f"UPDATE decision SET decision = 'abort' WHERE gtrid = '{gtrid(20)}'", 21),
        (f"UPDATE decision SET branches = '[]' WHERE gtrid = '{gtrid(20)}'", 21),
        (f"UPDATE decision SET prev = zeroblob(32) WHERE gtrid = '{gtrid(20)}'", 21),
        (f"UPDATE decision SET outcome = 'aborted' WHERE gtrid = '{gtrid(20)}'", 51),
    ],
)
def test_a_changed_value_is_one_damaged_record_by_name(log: Path, statement: str, seq: int) -> None:
    change(log, statement)
    assert wrongs(log) == [("damaged", seq, gtrid(20))]


def test_a_bit_that_flips_in_any_byte_of_a_record_is_noticed(log: Path) -> None:
    content = log.read_bytes()
    gtrid_at = content.index(f"{gtrid(20)}commit".encode())  # as a row's columns stand in the file
    row = range(gtrid_at - 36, content.index(b"committed", gtrid_at) + len("committed"))  # from prev to the outcome
    unnoticed = []
    for at in row:
        damaged = bytearray(content)
        damaged[at] ^= 0x04
        log.write_bytes(damaged)
        if not wrongs(log):
            unnoticed.append(at - row.start)
    assert (len(row) > 150, unnoticed) == (True, [])


def test_a_removed_decision_leaves_a_gap_that_nothing_explains(log: Path) -> None:
    change(log, f"DELETE FROM decision WHERE gtrid = '{gtrid(28)}'")
    assert wrongs(log) == [("missing", 29, None)]


def test_a_removed_decision_that_had_ended_is_missed_twice(log: Path) -> None:
    change(log, f"DELETE FROM decision WHERE gtrid = '{gtrid(20)}'")
    assert wrongs(log) == [("missing", 21, None), ("missing", 51, None)]


def test_an_end_taken_away_is_missed(log: Path) -> None:
    change(
        log,
        "UPDATE decision SET end_seq = NULL, end_prev = NULL, end_crc = NULL, outcome = NULL, ended_unix_ms = NULL "
        f"WHERE gtrid = '{gtrid(20)}'",
    )
    assert wrongs(log) == [("missing", 51, None)]


def test_a_decision_put_in_past_the_end_is_noticed(log: Path) -> None:
    change(log, _copy_of(20, seq=1000))
    assert [(wrong, seq) for wrong, seq, _ in wrongs(log)] == [
        ("missing", _head_seq(log) + 1),
        ("damaged", 1000),
        ("inserted", 1000),
    ]


def test_a_decision_put_in_where_one_was_dropped_is_noticed(log: Path) -> None:
    change(log, _copy_of(20, seq=3))
    assert ("inserted", 3, gtrid(777)) in wrongs(log)


def test_two_decisions_that_changed_places_are_both_named(log: Path) -> None:
    change(
        log,
        f"UPDATE decision SET seq = -1 WHERE gtrid = '{gtrid(20)}'",
        f"UPDATE decision SET seq = 21 WHERE gtrid = '{gtrid(21)}'",
        f"UPDATE decision SET seq = 22 WHERE gtrid = '{gtrid(20)}'",
    )
    assert wrongs(log) == [("damaged", 21, gtrid(21)), ("damaged", 22, gtrid(20))]


def test_a_changed_end_whose_checksum_was_made_anew_breaks_the_chain(log: Path) -> None:
    with sql(log) as connection:
        select = "SELECT end_seq, end_prev, ended_unix_ms FROM decision WHERE gtrid = ?"
        ((seq, prev, ended_unix_ms),) = connection.execute(select, (gtrid(20),)).fetchall()
        crc, _ = sealed(END, seq, prev, end_content(gtrid(20), "aborted", ended_unix_ms, ""))
        update = "UPDATE decision SET outcome = 'aborted', end_crc = ? WHERE gtrid = ?"
        connection.execute(update, (crc, gtrid(20)))
    assert wrongs(log) == [("changed", 51, gtrid(20))]


def test_an_end_cut_off_is_missed(log: Path) -> None:
    change(log, f"DELETE FROM decision WHERE gtrid = '{gtrid(100)}'")
    assert wrongs(log) == [("missing", _head_seq(log), None)]


def test_an_excuse_for_what_is_missing_is_noticed(log: Path) -> None:
    with sql(log) as connection:
        ((prev,),) = connection.execute("SELECT prev FROM decision WHERE seq = 29").fetchall()
        ((after,),) = connection.execute("SELECT prev FROM decision WHERE seq = 30").fetchall()
        connection.execute("DELETE FROM decision WHERE seq = 29")
        connection.execute("INSERT INTO dropped VALUES (29, 29, ?, ?)", (prev, after))
    found = verify(log)
    assert [finding["wrong"] for finding in found["findings"]] == ["books"]
    assert "`dropped`" in found["findings"][0]["problem"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE head SET seq = seq - 1",
        "UPDATE head SET hash = zeroblob(32)",
        "DELETE FROM head",
        "DELETE FROM checkpoint",
        "UPDATE coordinator SET epoch = epoch + 1",
        "DELETE FROM dropped WHERE first_seq = 2",
        "UPDATE dropped SET hash = zeroblob(32) WHERE first_seq = 2",
        "UPDATE participant SET address = 'h:3'",
    ],
)
def test_nothing_else_in_the_log_can_be_changed_unseen(log: Path, statement: str) -> None:
    change(log, statement)
    assert wrongs(log) != []


def test_an_entry_missing_from_an_index_is_noticed(log: Path) -> None:
    # Recovery finds by this index what has not ended.
    with sql(log) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'decision_by_end'").fetchall()
        ((page_bytes,),) = connection.execute("PRAGMA page_size").fetchall()
    content = bytearray(log.read_bytes())
    count_at = (
        root - 1
    ) * page_bytes + 3  # a page's header begins with its kind and a free block; then the cells' count
    count = int.from_bytes(content[count_at : count_at + 2], "big")
    content[count_at : count_at + 2] = (count - 1).to_bytes(2, "big")
    log.write_bytes(content)
    assert ("file", None, None) in wrongs(log)


def test_what_a_branch_may_wait_for_has_another_remedy_than_what_has_ended(log: Path) -> None:
    change(log, f"UPDATE decision SET client = 'x' WHERE gtrid = '{gtrid(20)}'")
    change(log, f"UPDATE decision SET client = 'x' WHERE gtrid = '{gtrid(28)}'")
    found = verify(log)
    mends = {finding["gtrid"]: finding["mend"] for finding in found["findings"]}
    assert "No branch waits for this record" in mends[gtrid(20)]
    assert "Some branch may wait for this decision" in mends[gtrid(28)]


# -- a head that was noted elsewhere -----------------------------------------------------------------------------------


def _head_seq(log: Path) -> int:
    with sql(log) as connection:
        return read_head(connection).seq


def _copy_of(number: int, *, seq: int) -> str:
    """Put in a decision about another transaction, made after the pattern of one that is there."""
    return f"""
        INSERT INTO decision (seq, prev, crc, gtrid, decision, decided_unix_ms, begun_unix_ms, client, branches)
        SELECT {seq}, prev, crc, '{gtrid(777)}', decision, decided_unix_ms, begun_unix_ms, client, branches
        FROM decision WHERE gtrid = '{gtrid(number)}'
    """


async def test_a_log_continues_the_head_that_was_noted(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    async with opened(sqlite_log(path)) as log:
        await decide(log, commit(1))
    before = verify(path)
    noted = "{seq}:{hash}".format(**before["head"])
    async with opened(sqlite_log(path)) as log:
        await decide(log, commit(2))
    found = verify(path, noted)
    assert (found["findings"], found["noted"]) == ([], "holds")


async def test_a_log_that_was_written_anew_does_not(tmp_path: Path) -> None:
    async with opened(sqlite_log(tmp_path / "true.db")) as log:
        await decide(log, commit(1))
    async with opened(sqlite_log(tmp_path / "forged.db")) as log:
        await decide(log, abort(1))
        await decide(log, commit(2))
    true = verify(tmp_path / "true.db")
    assert wrongs(tmp_path / "forged.db") == []  # by itself it is as good as any
    found = verify(tmp_path / "forged.db", "{seq}:{hash}".format(**true["head"]))
    assert (found["noted"], found["findings"][0]["wrong"]) == ("differs", "other log")


async def test_an_old_copy_ends_before_the_head_that_was_noted(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    async with opened(sqlite_log(path)) as log:
        await decide(log, commit(1))
    copy = Path(shutil.copy(path, tmp_path / "copy.db"))
    async with opened(sqlite_log(path)) as log:
        await decide(log, commit(2))
    newer = verify(path)
    found = verify(copy, "{seq}:{hash}".format(**newer["head"]))
    assert found["noted"] == "differs"
    assert "before the head that was noted" in found["findings"][0]["problem"]


def test_a_noted_head_whose_record_was_dropped_can_t_be_compared(log: Path) -> None:
    found = verify(log, f"3:{GENESIS.hex()}")
    assert (found["findings"], found["noted"]) == ([], "dropped")


# -- the export --------------------------------------------------------------------------------------------------------


def exported(log: Path) -> tuple[int, list[dict[str, Any]]]:
    """How many records are wrong, and the lines."""
    lines: list[str] = []
    wrong = export_log(log, lambda document: lines.append(json.dumps(document)))
    return wrong, [json.loads(line) for line in lines]


def test_the_export_has_each_record_once_in_order_and_each_hash_leads_to_the_next(log: Path) -> None:
    wrong, (first, *records) = exported(log)
    assert (wrong, first["record"], first["head_seq"]) == (0, "log", _head_seq(log))
    places = [
        (one["first_seq"], one["last_seq"]) if "first_seq" in one else (one["seq"], one["seq"]) for one in records
    ]
    assert [first_seq for first_seq, _ in places] == [1, *(last_seq + 1 for _, last_seq in places[:-1])]
    assert [one["prev"] for one in records] == [GENESIS.hex(), *(one["hash"] for one in records[:-1])]
    assert (records[-1]["hash"], records[-1]["gtrid"]) == (first["head_hash"], gtrid(100))


def test_a_decision_is_exported_with_its_branches(log: Path) -> None:
    _, lines = exported(log)
    (one,) = [line for line in lines if line["record"] == "decision" and line["gtrid"] == gtrid(20)]
    assert {
        name: one[name] for name in ("seq", "decision", "decided_unix_ms", "begun_unix_ms", "client", "problem")
    } == {
        "seq": 21,
        "decision": "commit",
        "decided_unix_ms": 20,
        "begun_unix_ms": 20,
        "client": "till 3",
        "problem": None,
    }
    assert one["branches"] == [{"bqual": "accounts.7hx2k9qd", "proof": "20"}, {"bqual": "ledger.8b", "proof": "21"}]


def test_every_field_of_the_export_is_documented(log: Path) -> None:
    page = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    section = page.partition("## handfast log export")[2].partition("\n## ")[0]
    _, lines = exported(log)
    rows = dict(re.findall(r"^\| `([a-z]+)`[^|]*\| (.*) \|$", section, re.MULTILINE))
    shared = section.partition("| each of the following |")[2].partition("\n")[0]
    missing = {
        (line["record"], name)
        for line in lines
        for name in line
        if name != "record" and f"`{name}`" not in rows[line["record"]] + shared
    }
    assert missing == set()
    assert {line["record"] for line in lines} | {"resolution"} == {*rows} - {"record"}


def test_a_record_that_is_damaged_is_exported_with_its_problem(log: Path) -> None:
    change(log, f"UPDATE decision SET branches = 'x' WHERE gtrid = '{gtrid(20)}'")
    wrong, lines = exported(log)
    (one,) = [line for line in lines if line["problem"]]
    assert (wrong, one["gtrid"], one["branches"], one["problem"]) == (1, gtrid(20), "x", "fails its checksum")


async def test_secrets_are_masked_in_the_export(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    canary = "c4n4ry-hunter2"
    async with opened(sqlite_log(path)) as log:
        await decide(log, replace(commit(1), client=f"postgresql://u:{canary}@h/d"))
        log.end(replace(ended(1), evidence=f"password={canary} failed"))
        told = partial(log.record_resolution, resolution(gtrid(1), reason=f"PGPASSWORD={canary}"))
        assert await answer_of(told) is None
        await flush(log)
    shown = json.dumps(exported(path))
    assert (canary in shown, shown.count("***")) == (False, 3)
