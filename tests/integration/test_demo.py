"""`handfast demo`, as somebody types it: its answer, and that nothing of it stays."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from chaos.stack import ManagedProcess, wait_until

HANDFAST = [sys.executable, "-m", "coordinator"]
ROOT = Path(__file__).parents[2]


def test_the_demo_as_json_is_one_document_with_the_verdict() -> None:
    command = [*HANDFAST, "demo", "--json", "--transfers", "120"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert list(answer) == [
        *("verdict", "transfers", "committed", "aborted", "unknown_resolved"),
        *("money_before", "money_after", "longest_block_s"),
    ]
    assert (answer["verdict"], answer["transfers"]) == ("atomic", 120)
    assert answer["committed"] + answer["aborted"] == 120
    assert answer["money_before"] == answer["money_after"] == 200_000
    assert min(answer["committed"], answer["aborted"], answer["unknown_resolved"], answer["longest_block_s"]) > 0


def test_a_demo_with_too_few_transfers_is_refused_by_name() -> None:
    done = subprocess.run(
        [*HANDFAST, "demo", "--transfers", "3"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "transfers" in done.stderr


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[ManagedProcess]:
    process = ManagedProcess("demo", [*HANDFAST, "demo"], log=tmp_path / "demo.log", cwd=ROOT, close_timeout_s=20)
    process.start()
    yield process
    process.close()


@pytest.mark.parametrize(
    ("moment", "number", "exit_code"),
    [
        ("A bank on two databases", signal.SIGINT, 130),
        ("Phase one", signal.SIGTERM, 143),
        ("The coordinator dies", signal.SIGINT, 130),
    ],
)
def test_a_demo_that_is_stopped_leaves_no_process_and_no_folder(
    demo: ManagedProcess, moment: str, number: signal.Signals, exit_code: int
) -> None:
    wait_until(lambda: _postgres_folder(demo.pid), 30, lambda: demo.report("started no Postgres"))
    folder = Path(_postgres_folder(demo.pid))
    demo.wait_for_output(moment, 60)
    family = psutil.Process(demo.pid).children(recursive=True)
    demo.send(number)
    assert demo.wait(30) == exit_code
    assert [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []
    assert not folder.exists()
    assert "Traceback" not in demo.output()


def _postgres_folder(pid: int) -> str:
    """The stack's folder, as the command line of a Postgres tells it; empty as long as there is none."""
    for child in psutil.Process(pid).children():
        try:
            line = child.cmdline()
        except psutil.NoSuchProcess:
            continue
        if "-D" in line and "postgres" in Path(line[0]).name:
            return str(Path(line[line.index("-D") + 1]).parents[1])
    return ""
