"""`handfast log` as an operator runs it, on logs that somebody has laid hands on, and the start that they stop."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.source_tree import REPOSITORY
from tests.conformance.decision_logs import commit, decide, gtrid
from tests.unit.log.full_log import fill_with_everything
from tests.unit.log.sqlite_logs import change, opened, sql, sqlite_log

WITHIN_S = 60


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coordinator", *map(str, words)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=WITHIN_S, check=False)


def verify(log: Path) -> tuple[int, dict[str, Any]]:
    ran = run("log", "verify", "--log", log, "--json")
    assert ran.stderr == ""
    return ran.returncode, json.loads(ran.stdout)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "handfast.db"
    asyncio.run(fill_with_everything(path))
    return path


@pytest.fixture
def log(whole: Path, tmp_path: Path) -> Path:
    """A closed log: the life at position 1, the decision about transaction N at N + 1, then their ends."""
    return Path(shutil.copy(whole, tmp_path / "handfast.db"))


def test_a_log_as_it_was_written_is_told_so_with_its_head(log: Path) -> None:
    ran = run("log", "verify", "--log", log)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Every record is what was written, and none is missing." in ran.stdout
    assert re.search(r"The head is [0-9]+:[0-9a-f]{64}\n", ran.stdout)


def test_looking_leaves_nothing_behind(log: Path) -> None:
    before = {file.name: file.read_bytes() for file in log.parent.iterdir()}
    for command in ("verify", "export"):
        assert run("log", command, "--log", log).returncode == 0
    assert {file.name: file.read_bytes() for file in log.parent.iterdir()} == before


async def test_a_log_in_use_is_verified_and_exported_as_it_stands_then(tmp_path: Path) -> None:
    path = tmp_path / "handfast.db"
    async with opened(sqlite_log(path)) as log:
        await decide(log, commit(1))
        code, found = await asyncio.to_thread(verify, path)
        assert (code, found["records"]["decision"]) == (0, 1)
        await decide(log, commit(2))
        lines = (await asyncio.to_thread(run, "log", "export", "--log", path)).stdout.splitlines()
        assert [json.loads(line).get("gtrid") for line in lines[2:]] == [gtrid(1), gtrid(2)]
        await decide(log, commit(3))
        assert len(log.unended()) == 3


# -- hands on the log --------------------------------------------------------------------------------------------------


def _flip_a_bit(log: Path) -> None:
    content = bytearray(log.read_bytes())
    row = content.index(f"{gtrid(28)}commit".encode())  # as a row's columns stand in the file
    content[row + len(gtrid(28))] ^= 0x04
    log.write_bytes(content)


def _delete_a_row(log: Path) -> None:
    change(log, f"DELETE FROM decision WHERE gtrid = '{gtrid(28)}'")


def _insert_a_row(log: Path) -> None:
    columns = "decision, decided_unix_ms, begun_unix_ms, client, branches"
    change(
        log,
        f"INSERT INTO decision (seq, prev, crc, gtrid, {columns}) "
        f"SELECT 3, prev, crc, '{gtrid(777)}', {columns} FROM decision WHERE seq = 29",
    )


def _reorder_two_rows(log: Path) -> None:
    change(
        log,
        "UPDATE decision SET seq = -1 WHERE seq = 29",
        "UPDATE decision SET seq = 29 WHERE seq = 30",
        "UPDATE decision SET seq = 30 WHERE seq = -1",
    )


@pytest.mark.parametrize(
    ("strike", "said"),
    [
        (_flip_a_bit, f"DAMAGED  the decision of {gtrid(28)} at position 29 fails its checksum."),
        (
            _delete_a_row,
            f"MISSING  the record at position 29 is gone, after the decision of {gtrid(27)} at position 28.",
        ),
        (
            _insert_a_row,
            f"INSERTED  the decision of {gtrid(777)} at position 3 stands where another record stands already.",
        ),
        (_reorder_two_rows, f"DAMAGED  the decision of {gtrid(29)} at position 29 fails its checksum."),
    ],
)
def test_what_was_done_to_a_log_is_told_by_record_and_position(
    log: Path, strike: Callable[[Path], None], said: str
) -> None:
    strike(log)
    ran = run("log", "verify", "--log", log)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert said in ran.stdout
    assert ran.stdout.endswith("The log is NOT what was written to it.\n")


@pytest.mark.parametrize("pages", [1, 3])
def test_a_truncated_file_is_told_from_a_whole_one(log: Path, pages: int) -> None:
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - pages * 4096)
    ran = run("log", "verify", "--log", log)
    assert ran.returncode == 1
    assert "FILE  SQLite finds the file's structure broken" in ran.stdout or "LOG_CORRUPT" in ran.stderr


def test_a_damaged_record_is_exported_with_its_problem_and_an_exit_code(log: Path) -> None:
    _flip_a_bit(log)
    ran = run("log", "export", "--log", log)
    assert (ran.returncode, ran.stderr) == (1, "")
    (one,) = [line for line in map(json.loads, ran.stdout.splitlines()) if line["problem"]]
    assert (one["record"], one["gtrid"]) == ("decision", gtrid(28))


# -- what can't be read ------------------------------------------------------------------------------------------------


def _missing(folder: Path) -> Path:
    return folder / "missing.db"


def _garbage(folder: Path) -> Path:
    (folder / "garbage.db").write_bytes(b"this is no database at all\n" * 500)
    return folder / "garbage.db"


def _of_another(folder: Path) -> Path:
    with sql(folder / "other.db") as connection:
        connection.execute("CREATE TABLE decision (what TEXT)")
    return folder / "other.db"


@pytest.mark.parametrize(
    ("command", "make", "code"),
    [
        ("verify", _missing, "LOG_PATH_UNUSABLE"),
        ("verify", _garbage, "LOG_CORRUPT"),
        ("export", _of_another, "LOG_PATH_UNUSABLE"),
    ],
)
def test_what_is_no_log_is_refused_in_the_catalog_s_words(
    tmp_path: Path, command: str, make: Callable[[Path], Path], code: str
) -> None:
    path = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    ran = run("log", command, "--log", path)
    assert (ran.returncode, code in ran.stderr, ran.stdout) == (1, True, "")
    assert sorted(tmp_path.iterdir()) == before


def test_a_head_of_the_wrong_form_is_a_wrong_command_line(log: Path) -> None:
    ran = run("log", "verify", "--log", log, "--head", "12:abc")
    assert (ran.returncode, "OPTIONS_UNFIT" in ran.stderr) == (2, True)


# -- the coordinator ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strike", "code", "said"),
    [
        (_flip_a_bit, "LOG_RECORD_DAMAGED", f"the decision of {gtrid(28)} at position 29 fails its checksum"),
        (_delete_a_row, "LOG_CHAIN_BROKEN", "the record at position 29 is gone"),
    ],
)
def test_the_coordinator_does_not_start_on_such_a_log_and_says_why(
    log: Path, strike: Callable[[Path], None], code: str, said: str
) -> None:
    strike(log)
    ran = run("serve", "--log", log, "--address", "127.0.0.1:0")
    assert ran.returncode == 1
    assert said in ran.stderr.replace("\n", " ")
    assert (code in ran.stderr, "Traceback" in ran.stderr) == (True, False)
    assert f"handfast log verify --log {log}" in ran.stderr
