"""The log and the processes around it: a second coordinator, a killed one, one whose disk fails."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.architecture.source_tree import REPOSITORY
from tests.conformance.decision_logs import commit
from tests.unit.log.log_process import FORCES_BEFORE_KILL
from tests.unit.log.sqlite_logs import fault_at_open, opened, sqlite_log

ENDED_WITHIN_S = 30.0


class LogProcess:
    """Another process with the log open."""

    def __init__(self, started: subprocess.Popen[str]) -> None:
        assert started.stdout is not None
        self.pid = started.pid
        self._started = started
        self._said = started.stdout

    def says(self) -> str:
        """Wait for its next line."""
        return self._said.readline().rstrip()

    def kill(self) -> None:
        self._started.send_signal(signal.SIGKILL)

    def last_words(self) -> list[str]:
        """Wait until it has ended, and return what it had said and nobody had read."""
        said = self._said.read().splitlines()
        self._started.wait(ENDED_WITHIN_S)
        return said


@contextmanager
def log_process(log: Path, task: str) -> Iterator[LogProcess]:
    command = [sys.executable, "-m", "tests.unit.log.log_process", str(log), task]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as started:
        try:
            process = LogProcess(started)
            assert process.says() == "open"
            yield process
        finally:
            started.kill()


def acknowledged(lines: list[str]) -> list[str]:
    return [line.partition(" ")[2] for line in lines if line.startswith("acknowledged ")]


async def whole_gtrids_in(log: Path) -> set[str]:
    """Recover the log; return what it holds, having seen that each decision is the one that was offered."""
    async with opened(sqlite_log(log)) as recovered:
        known = {one.decision.gtrid: one.decision for one in recovered.recent(0)}
    assert known == {gtrid: commit(int(gtrid.rpartition("-")[2])) for gtrid in known}
    return set(known)


async def test_a_second_process_on_the_log_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    # narayana 3048: two coordinators on one log
    log = tmp_path / "handfast.db"
    with log_process(log, "nothing") as process:
        fault = await fault_at_open(sqlite_log(log))
        assert fault.code == "LOG_LOCKED"
        assert f"pid {process.pid}, since " in fault.message


async def test_another_name_for_the_same_log_is_the_same_lock(tmp_path: Path) -> None:
    log = tmp_path / "handfast.db"
    (tmp_path / "link.db").symlink_to(log)
    async with opened(sqlite_log(log)):
        assert (await fault_at_open(sqlite_log(tmp_path / "link.db"))).code == "LOG_LOCKED"


async def test_the_same_process_is_refused_too_and_harms_nothing(tmp_path: Path) -> None:
    log = tmp_path / "handfast.db"
    async with opened(sqlite_log(log)):
        fault = await fault_at_open(sqlite_log(log))
        assert fault.code == "LOG_LOCKED"
        assert f"pid {os.getpid()}," in fault.message
        assert "is in use by another coordinator" in errors_of_log_process(log)  # the lock survived the attempt


def errors_of_log_process(log: Path) -> str:
    """Have another process fail to open the log; return what it wrote to stderr."""
    command = [sys.executable, "-m", "tests.unit.log.log_process", str(log), "nothing"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=ENDED_WITHIN_S, check=False)
    assert ended.returncode != 0
    return ended.stderr


async def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    log = tmp_path / "handfast.db"
    with log_process(log, "nothing") as process:
        process.kill()
        process.last_words()
        async with opened(sqlite_log(log)) as recovered:
            assert recovered.unended() == []


@pytest.mark.parametrize("acknowledgements", [1, 500, 5000])
async def test_every_acknowledged_decision_survives_sigkill(tmp_path: Path, acknowledgements: int) -> None:
    log = tmp_path / "handfast.db"
    with log_process(log, "until-it-fails") as process:
        said = [process.says() for _ in range(acknowledgements)]
        process.kill()
        said += process.last_words()
    survivors = await whole_gtrids_in(log)
    assert len(acknowledged(said)) >= acknowledgements
    assert set(acknowledged(said)) - survivors == set()


async def test_a_force_that_never_came_to_its_commit_left_nothing(tmp_path: Path) -> None:
    log = tmp_path / "handfast.db"
    with log_process(log, "one-by-one-until-a-force-kills") as process:
        said = process.last_words()
    assert len(acknowledged(said)) == FORCES_BEFORE_KILL
    assert await whole_gtrids_in(log) == set(acknowledged(said))


async def test_a_failing_disk_breaks_the_log_and_what_it_acknowledged_is_there(tmp_path: Path) -> None:
    log = tmp_path / "handfast.db"
    with log_process(log, "until-no-file-may-grow") as process:
        said = process.last_words()
    assert {line for line in said if not line.startswith("acknowledged")} == {"failed LogBroken", "broken"}
    assert said.count("broken") == 1
    assert acknowledged(said) != []
    assert set(acknowledged(said)) - await whole_gtrids_in(log) == set()
