"""A managed process is started, paused, killed and started again for real, and leaves nothing behind."""

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from chaos.stack import (
    ManagedProcess,
    NotInTime,
    NotRunning,
    StackError,
    StartFailed,
    free_port,
    release_port,
    wait_until,
)

COUNTING = "import itertools, time\nprint('up')\nfor n in itertools.count(): print(n); time.sleep(0.005)"
DEAF = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up')\nwhile True: time.sleep(1)"
PARENT = (
    "import subprocess, sys, time\nchild = subprocess.Popen(['sleep', '60'])\nprint('up', child.pid)\ntime.sleep(60)"
)


class Starter:
    """Starts Python one-liners, and closes them at the end of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[ManagedProcess] = []

    def __call__(self, code: str, ready: str | None = "up", *, close_timeout_s: float = 5.0) -> ManagedProcess:
        command = [sys.executable, "-c", code]
        log = self.folder / "process.log"
        process = ManagedProcess("counter", command, log=log, ready=ready, close_timeout_s=close_timeout_s)
        self.started.append(process)
        return process.start()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    for process in starter.started:
        process.close()


def test_a_paused_process_stands_still_until_it_is_resumed(start: Starter) -> None:
    process = start(COUNTING)
    process.pause()
    assert process.alive
    assert process.paused
    written = process.output()
    with pytest.raises(NotInTime):
        wait_until(lambda: process.output() != written, 0.1, "it wrote nothing")
    process.resume()
    wait_until(lambda: process.output() != written, 5, "it did not go on")


def test_a_killed_process_tells_its_signal_and_starts_again(start: Starter) -> None:
    process = start(COUNTING)
    first = process.pid
    process.kill()
    assert (process.alive, process.exit_code) == (False, -signal.SIGKILL)
    process.start()
    assert process.alive
    assert process.pid != first
    assert process.output().startswith("up\n0\n")


def test_stopping_reaches_a_paused_process(start: Starter) -> None:
    process = start(COUNTING)
    process.pause()
    assert process.stop() == -signal.SIGTERM


def test_a_process_that_ignores_sigterm_is_reported_by_stop_and_killed_by_close(start: Starter) -> None:
    process = start(DEAF, close_timeout_s=0.1)
    with pytest.raises(NotInTime, match="counter still runs"):
        process.stop()
    assert process.alive
    process.close()
    assert process.exit_code == -signal.SIGKILL


def test_what_a_process_leaves_behind_goes_with_it(start: Starter) -> None:
    process = start(PARENT)
    left_behind = psutil.Process(int(process.output().split()[1]))
    process.send(signal.SIGKILL)  # to the parent alone
    process.wait(5)
    wait_until(
        lambda: not left_behind.is_running() or left_behind.status() == psutil.STATUS_ZOMBIE, 5, "its child still runs"
    )


def test_a_process_that_ends_before_it_is_ready_shows_its_log(start: Starter) -> None:
    with pytest.raises(StartFailed, match=r"counter ended with 3 before it was ready(.|\n)*no disk"):
        start("import sys; print('no disk'); sys.exit(3)")


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    process = ManagedProcess("ghost", ["/no/such/program"], log=tmp_path / "log", ready="up")
    with pytest.raises(StartFailed, match="Cannot run /no/such/program: No such file or directory"):
        process.start()


def test_a_process_outlives_the_thread_that_started_it(start: Starter) -> None:
    """The kernel takes the thread that started a child for its parent, and would kill the child with it."""
    started: list[ManagedProcess] = []
    thread = threading.Thread(target=lambda: started.append(start(COUNTING)))
    thread.start()
    thread.join()
    written = started[0].output()
    wait_until(lambda: started[0].output() != written, 5, "it does not go on")
    assert started[0].alive


def test_a_signal_for_a_process_that_has_ended_is_an_error(start: Starter) -> None:
    process = start("print('up')")
    process.wait(5)
    with pytest.raises(NotRunning, match="counter ended with 0"):
        process.terminate()


def test_a_closed_process_does_not_start_again(start: Starter) -> None:
    process = start(COUNTING)
    process.close()
    with pytest.raises(StackError, match="was closed"):
        process.start()


def test_a_port_is_handed_out_once_and_can_be_bound_by_its_owner() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    with socket.create_server(("127.0.0.1", ports[0])):
        pass
    for port in ports:
        release_port(port)
