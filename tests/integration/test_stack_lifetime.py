"""Whatever ends a stack, what it started ends with it: looked up by process id, and in the file system."""

import asyncio
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from chaos.stack import CleanupFailed, ManagedProcess, PostgresCluster, Stack, StackError, StackFolder, wait_until

ROOT = Path(__file__).parents[2]

RESOURCES = """
import asyncio, sys
from chaos.stack import *

def start_all(stack):
    sleeper = ManagedProcess("sleeper", ["sleep", "600"], log=stack.path / "sleeper.log")
    processes = [stack.start(sleeper)]
    if "postgres" in sys.argv:
        processes.append(stack.start(PostgresCluster("one", stack.path)).process)
    print("READY", stack.path, *(one.pid for one in processes), flush=True)
"""

SYNC = f"""{RESOURCES}
with Stack() as stack:
    start_all(stack)
    wait_until(lambda: False, 600, "nothing ended this")
"""

ASYNC = f"""{RESOURCES}
async def main():
    async with Stack() as stack:
        await asyncio.to_thread(start_all, stack)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def _runs(process: psutil.Process) -> bool:
    """Whether it runs now; it may end while it is looked at."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Program:
    """A running program that holds a stack, and what that stack consists of."""

    process: ManagedProcess
    folder: Path
    family: list[psutil.Process]

    def leftovers(self) -> list[psutil.Process]:
        return [one for one in self.family if _runs(one)]


class Launcher:
    """Starts programs that hold a stack; at the end of a test that failed, ends what they left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[ManagedProcess] = []
        self.programs: list[Program] = []

    def __call__(self, code: str, *arguments: str) -> Program:
        command = [sys.executable, "-W", "error", "-c", code, *arguments]
        process = ManagedProcess(
            "program", command, log=self.folder / "log", cwd=ROOT, ready="READY", ready_timeout_s=20
        )
        self.processes.append(process)
        process.start()
        _, folder, *pids = next(line for line in process.output().splitlines() if "READY" in line).split()
        family = psutil.Process(process.pid).children(recursive=True)
        assert {int(pid) for pid in pids} <= {one.pid for one in family}
        self.programs.append(Program(process, Path(folder), family))
        return self.programs[-1]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path)
    yield launcher
    for process in launcher.processes:
        process.close()
    for left in [one for program in launcher.programs for one in program.leftovers()]:
        left.kill()


@pytest.mark.parametrize("code", [SYNC, ASYNC], ids=["sync", "asyncio"])
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_stop_signal_leaves_nothing(launch: Launcher, code: str, number: signal.Signals, exit_code: int) -> None:
    program = launch(code)
    program.process.send(number)
    assert program.process.wait(15) == exit_code
    assert program.leftovers() == []
    assert not program.folder.exists()


def test_impatient_ctrl_c_does_not_stop_the_cleaning(launch: Launcher) -> None:
    program = launch(SYNC, "postgres")

    def again() -> bool:
        if program.process.alive:
            program.process.send(signal.SIGINT)
        return not program.process.alive

    wait_until(again, 15, "it still runs")
    assert program.leftovers() == []
    assert not program.folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can end the children of a process that was killed")
def test_the_children_of_a_killed_program_end_and_the_next_stack_removes_its_folder(launch: Launcher) -> None:
    program = launch(SYNC, "postgres")
    os.kill(program.process.pid, signal.SIGKILL)
    wait_until(lambda: not program.leftovers(), 10, lambda: f"these still run: {program.leftovers()}")
    program.process.wait(5)
    assert program.folder.exists()
    StackFolder().close()
    assert not program.folder.exists()


class Recorder:
    """A resource that notes when it is closed, and can fail at it or hang in it."""

    def __init__(self, name: str, closed: list[str], *, error: Exception | None = None, hangs: bool = False) -> None:
        self.name = name
        self.closed = closed
        self.error = error
        self.hangs = hangs

    def close(self) -> None:
        self.closed.append(self.name)
        if self.hangs:
            threading.Event().wait(5)  # well past the bound of its stack; a daemon thread, so nobody waits for it
        if self.error:
            raise self.error


def test_resources_are_closed_in_reverse_order_past_failures_that_are_all_reported() -> None:
    closed: list[str] = []
    stack = Stack()
    stack.add(Recorder("first", closed))
    stack.add(Recorder("second", closed, error=OSError("disk on fire")))
    stack.add(Recorder("third", closed, error=ValueError("odd")))
    with pytest.raises(CleanupFailed, match=r"third: ValueError: odd\n.*second: OSError: disk on fire"):
        stack.close()
    assert closed == ["third", "second", "first"]
    assert not stack.path.exists()


def test_a_resource_that_hangs_is_given_up_and_reported() -> None:
    closed: list[str] = []
    stack = Stack(close_timeout_s=0.1)
    stack.add(Recorder("first", closed))
    stack.add(Recorder("second", closed, hangs=True))
    with pytest.raises(CleanupFailed, match=r"second: NotInTime: closing it took longer than 0.1 s"):
        stack.close()
    assert closed == ["second", "first"]


def test_the_error_that_ended_the_block_keeps_its_place_and_carries_the_failed_cleaning() -> None:
    def end_with_an_error() -> None:
        with Stack() as stack:
            stack.add(Recorder("only", [], error=OSError("disk on fire")))
            raise KeyError("why it ended")

    with pytest.raises(KeyError, match="why it ended") as caught:
        end_with_an_error()
    assert "only: OSError: disk on fire" in caught.value.__notes__[0]


def test_a_start_that_fails_is_cleaned_up(tmp_path: Path) -> None:
    process = ManagedProcess("mute", ["sleep", "600"], log=tmp_path / "log", ready="never", ready_timeout_s=0.1)
    with pytest.raises(StackError, match="mute was not ready"):
        with Stack() as stack:
            stack.start(process)
    assert not process.alive


def test_a_closed_stack_takes_nothing_more() -> None:
    with Stack() as stack:
        pass
    with pytest.raises(StackError, match="The stack is closed"):
        stack.start(PostgresCluster("late", stack.path))


def test_keep_leaves_the_folder() -> None:
    with Stack(keep=True) as stack:
        (stack.folder("logs") / "one.log").write_text("evidence")
    StackFolder().close()  # would remove a folder that has no owner any more
    assert (stack.path / "logs" / "one.log").read_text() == "evidence"
    shutil.rmtree(stack.path)


async def test_under_asyncio_a_cancelled_block_is_closed_to_the_end() -> None:
    closed: list[str] = []
    inside = asyncio.Event()

    async def hold() -> None:
        async with Stack() as stack:
            stack.add(Recorder("only", closed))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == ["only"]
