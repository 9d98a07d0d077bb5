"""A coordinator that a nursery forks (chaos/sweep/nursery.py), handled like every other process of a stack."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from chaos.stack import ManagedProcess, NotRunning, python_module, wait_until

_READY_S_MAX = 30.0
_ANSWER_S_MAX = 30.0


class Nursery(ManagedProcess):
    """The nursery's process, and the way to it.

    Args:
        folder: for its socket and its output.
        env: variables added to its environment, and so to that in which the coordinator's modules are loaded.
        cwd: the folder to run in.
    """

    def __init__(self, folder: Path, *, env: Mapping[str, str], cwd: Path | None) -> None:
        self.socket = folder / "nursery"
        argv = python_module("chaos.sweep.nursery", str(self.socket))
        log = folder / "nursery.log"
        super().__init__("nursery", argv, log=log, env=env, cwd=cwd, ready=self.socket.exists, ready_timeout_s=30)
        self._asking = threading.Lock()
        self._connection: socket.socket | None = None
        self._answers: IO[str] | None = None

    def ask(self, question: Mapping[str, object]) -> Any:
        """Ask it. Returns its answer. Raises OSError when it has gone."""
        with self._asking:
            connection, answers = self._connected()
            connection.sendall(json.dumps(question).encode() + b"\n")
            line = answers.readline()
        if not line:
            raise ConnectionError(self.report("has gone"))
        return json.loads(line)

    def _connected(self) -> tuple[socket.socket, IO[str]]:
        if self._connection is None or self._answers is None:
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.settimeout(_ANSWER_S_MAX)
            wait_until(self._connects, _READY_S_MAX, lambda: self.report("does not listen"))
            self._answers = self._connection.makefile("r")
        return self._connection, self._answers

    def _connects(self) -> bool:
        assert self._connection is not None
        try:
            self._connection.connect(str(self.socket))
        except (ConnectionRefusedError, FileNotFoundError):  # bound, and not listening yet
            return False
        return True

    def close(self) -> None:
        """End it, and its child with it."""
        if self._connection is not None:
            self._connection.close()
        super().close()


class ForkedCoordinator(ManagedProcess):
    """A coordinator whose parent is the nursery. Only how it is started and waited for differs.

    Args:
        like: the coordinator that a stack would have started.
        nursery: who forks it.
    """

    def __init__(self, like: ManagedProcess, nursery: Nursery) -> None:
        super().__init__(
            like.name,
            like.argv,
            log=like.log,
            env=like.env,
            inherit_env=False,
            cwd=like.cwd,
            ready=like.ready,
            ready_timeout_s=like.ready_timeout_s,
        )
        self.each_checkpoint = False
        self.stands = False
        self._nursery = nursery
        self._pid = 0
        self._exit_code: int | None = None

    @property
    def pid(self) -> int:
        """The process id of the last start. Raises NotRunning when it was never started."""
        if not self._pid:
            raise NotRunning(f"{self.name} was never started.")
        return self._pid

    @property
    def alive(self) -> bool:
        """Whether the process runs (or is paused)."""
        return self._pid != 0 and self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """As ManagedProcess tells it."""
        with self._lock:
            if self._pid and self._exit_code is None:
                self._exit_code = self._nursery.ask({})
            return self._exit_code

    def _spawn(self) -> None:
        with self._lock:
            if self.alive:
                raise NotRunning(f"{self.name} is already running (pid {self.pid}).")
            self.log.touch()
            self._log_start = self.log.stat().st_size
            self._pid = self._nursery.ask(
                {
                    "argv": self.argv[self.argv.index("coordinator") + 1 :],
                    "env": self.env,
                    "log": str(self.log),
                    "stand": self.stands,
                    "each": self.each_checkpoint,
                }
            )
            self._exit_code = None
