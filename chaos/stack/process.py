"""ManagedProcess: one real child process, with its log, its readiness and its signals.

Only processes started here are ever signalled, and only while they are certainly the ones meant: a child's id cannot be
given to another process before the child is reaped, so every signal is sent, and every reaping done, under one lock.
"""

import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from signal import Signals
from typing import Self

import psutil

from chaos.stack import spawn
from chaos.stack.errors import NotInTime, NotRunning, StackError, StartFailed
from chaos.stack.spawn import User
from chaos.stack.waiting import wait_until

logger = logging.getLogger(__name__)

Ready = str | Callable[[], object]
"""When a process is ready: a text in its output since the start, or a function whose answer is true."""

_SPAWN_S_MAX = 10.0
_KILL_S_MAX = 5.0


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a Python module with the interpreter of this process."""
    return [sys.executable, "-m", module, *arguments]


class ManagedProcess:
    """A command, run as a real process in a session and process group of its own.

    The child dies with us, also when we are killed with SIGKILL (Linux). What the child leaves behind in its process
    group is killed when the child has ended.

    Args:
        name: how messages call it.
        argv: the program and its arguments.
        log: the file that its standard output and error are appended to; kept across restarts.
        env: variables added to (or, without `inherit_env`, making up) the child's environment.
        inherit_env: start from this process's environment. Python children are told not to buffer their output.
        cwd: the folder to run in; ours when None.
        ready: a text in its output, or a function; None means ready at once.
        ready_timeout_s: how long `start` waits for that, in seconds.
        close_signal: what `stop` and `close` send.
        close_timeout_s: how long they wait for the process to end, in seconds.
        death_signal: what the child gets when we die.
        user: whom to run as; needs root.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        inherit_env: bool = True,
        cwd: Path | None = None,
        ready: Ready | None = None,
        ready_timeout_s: float = 10.0,
        close_signal: Signals = signal.SIGTERM,
        close_timeout_s: float = 5.0,
        death_signal: Signals = signal.SIGKILL,
        user: User | None = None,
    ) -> None:
        self.name = name
        self.argv = [str(part) for part in argv]
        self.log = log
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})} if inherit_env else dict(env or {})
        self.cwd = cwd
        self.ready = ready
        self.ready_timeout_s = ready_timeout_s
        self.close_signal = close_signal
        self.close_timeout_s = close_timeout_s
        self.death_signal = death_signal
        self.user = user
        self._lock = threading.RLock()
        self._future: Future[spawn.Child] | None = None
        self._log_start = 0
        self._closed = False

    # Starting

    def start(self, *, wait: bool = True) -> Self:
        """Start the process, or start it again with the same command after it has ended.

        Args:
            wait: return only when it is ready. Without, call `wait_ready` when that matters.

        Raises:
            StartFailed: it ended before it was ready, or was not ready in time and was killed.
            StackError: it is running already, or was closed.
        """
        self._spawn()
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Wait, no longer than `ready_timeout_s`, until the process is ready.

        Raises:
            StartFailed: it ended before, or was not ready in time and was killed.
        """
        try:
            wait_until(self._ready_or_ended, self.ready_timeout_s, "it was not ready")
        except NotInTime as error:
            self.kill()
            raise StartFailed(self.report(f"was not ready within {self.ready_timeout_s:g} s and was killed")) from error
        # A function may be answered by somebody else, a text in the log can only be our child's.
        ready = self._is_ready() if not callable(self.ready) else self.alive
        if not ready:
            raise StartFailed(self.report(f"ended with {self.exit_code} before it was ready"))

    def restart(self, *, wait: bool = True) -> Self:
        """Stop the process if it runs, then start it with the same command.

        Raises:
            NotInTime: it did not stop.
            StartFailed: as for `start`.
        """
        if self.alive:
            self.stop()
        return self.start(wait=wait)

    def _spawn(self) -> None:
        with self._lock:
            if self._closed:
                raise StackError(f"{self.name} was closed and cannot be started again. Make a new one.")
            if self.alive:
                raise StackError(f"{self.name} is already running (pid {self.pid}). Stop it first, or use restart().")
            line = spawn.launch_line(self.argv, self.death_signal, self.user)
            with self.log.open("ab") as log:
                self._log_start = log.tell()
                self._future = Future()
                spawn.submit(lambda: spawn.popen(line, self.env, self.cwd, log), self._future)
                self._future.result(_SPAWN_S_MAX)

    def _ready_or_ended(self) -> bool:
        return not self.alive or self._is_ready()

    def _is_ready(self) -> bool:
        if isinstance(self.ready, str):
            return self.ready in self.output()
        return self.ready is None or bool(self.ready())

    # State

    @property
    def pid(self) -> int:
        """The process id of the last start. Raises NotRunning when it was never started."""
        child = self._child()
        if child is None:
            raise NotRunning(f"{self.name} was never started.")
        return child.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs (or is paused)."""
        return self._child() is not None and self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """The exit code; minus the signal's number when a signal ended it; None while it runs or before any start."""
        with self._lock:
            child = self._child()
            if child is None or child.returncode is not None:
                return child.returncode if child else None
            if _has_ended(child):
                _signal_group(child.pid, signal.SIGKILL)  # before the reaping, while the group's id is surely ours
                child.wait(_KILL_S_MAX)
            return child.returncode

    def _child(self) -> spawn.Child | None:
        """The child of the last start, waiting for one that is being started this moment."""
        if self._future is None:
            return None
        try:
            return self._future.result(_SPAWN_S_MAX)
        except (Exception, CancelledError):  # noqa: BLE001 - it was raised by `start`; there is no child
            return None

    # Output

    def output(self) -> str:
        """What the process wrote since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def wait_for_output(self, text: str, timeout_s: float) -> None:
        """Wait until `text` is in the output since the last start.

        Raises:
            NotInTime: it did not come in time, or the process ended without it.
        """
        wait_until(
            lambda: text in self.output() or not self.alive, timeout_s, lambda: self.report(f"wrote no {text!r}")
        )
        if text not in self.output():
            raise NotInTime(self.report(f"ended with {self.exit_code} and wrote no {text!r}"))

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the log file, of this start and of earlier ones."""
        if not self.log.exists():
            return ""
        with self.log.open(errors="replace") as log:
            return "".join(deque(log, lines)).rstrip()

    def report(self, what: str) -> str:
        """A message: the process's name, what happened to it, and the last lines of its log."""
        return f"{self.name} {what}. The last lines of {self.log}:\n{self.log_tail() or '(nothing was written)'}"

    # Signals

    def send(self, number: Signals) -> None:
        """Send a signal to the process itself.

        Raises:
            NotRunning: it does not run.
        """
        with self._lock:
            self._require_running()
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), without waiting."""
        self.send(signal.SIGTERM)

    def interrupt(self) -> None:
        """Do as Ctrl-C does (SIGINT), without waiting."""
        self.send(signal.SIGINT)

    def pause(self) -> None:
        """Stop it and its process group in their tracks (SIGSTOP), and wait until the process stands still.

        Raises:
            NotRunning: it does not run.
        """
        self._send_group(signal.SIGSTOP)
        wait_until(lambda: self.paused, _KILL_S_MAX, f"{self.name} did not stand still after SIGSTOP")

    def resume(self) -> None:
        """Let it and its process group go on (SIGCONT). Raises NotRunning when it does not run."""
        self._send_group(signal.SIGCONT)

    @property
    def paused(self) -> bool:
        """Whether it stands still after SIGSTOP."""
        with self._lock:
            return self.alive and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def kill(self) -> None:
        """Kill it and its process group (SIGKILL) and wait until it is gone. Nothing happens when it does not run."""
        with self._lock:
            if self.alive:
                _signal_group(self.pid, signal.SIGKILL)
        self.wait(_KILL_S_MAX)

    def wait(self, timeout_s: float) -> int | None:
        """Wait until the process has ended.

        Returns:
            Its exit code; None when it was never started.

        Raises:
            NotInTime: it still runs. It is left running.
        """
        wait_until(lambda: not self.alive, timeout_s, lambda: self.report("still runs"))
        return self.exit_code

    def stop(self, timeout_s: float | None = None) -> int | None:
        """Send `close_signal`, also to a paused process, and wait until it has ended.

        Args:
            timeout_s: how long to wait, in seconds; `close_timeout_s` when None.

        Returns:
            Its exit code; None when it was never started.

        Raises:
            NotInTime: it still runs. It is left running.
        """
        with self._lock:
            if self.alive:
                os.kill(self.pid, self.close_signal)
                _signal_group(self.pid, signal.SIGCONT)
        return self.wait(self.close_timeout_s if timeout_s is None else timeout_s)

    def close(self) -> None:
        """Stop it for good. When it does not stop in time, it is killed, and a warning logged."""
        self._closed = True
        if self._future is not None:
            self._future.cancel()  # a start that was interrupted before it began
        try:
            self.stop()
        except NotInTime as error:
            logger.warning("%s was killed, for it ignored %s: %s", self.name, self.close_signal.name, error)
            self.kill()

    def _send_group(self, number: Signals) -> None:
        with self._lock:
            self._require_running()
            _signal_group(self.pid, number)

    def _require_running(self) -> None:
        if not self.alive:
            state = f"ended with {self.exit_code}" if self._child() else "was never started"
            raise NotRunning(f"{self.name} {state}. Call start() first.")


def _has_ended(child: spawn.Child) -> bool:
    """Whether the child has ended, asked without reaping it where the system can (Python on macOS: from 3.13)."""
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return child.poll() is not None


def _signal_group(pid: int, number: Signals) -> None:
    """Signal the process group that `pid` leads. A group that has gone, or consists of one dead leader, is no error."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        if sys.platform != "darwin":  # macOS says this of a group of zombies
            raise
