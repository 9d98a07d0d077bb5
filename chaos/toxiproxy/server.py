"""One Toxiproxy server process."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from chaos.stack import ManagedProcess, free_port, release_port
from chaos.toxiproxy.api import Toxiproxy
from chaos.toxiproxy.binary import Tell, find_server

_READY_S_MAX = 10.0


class ToxiproxyServer:
    """A Toxiproxy server on a free loopback port; a resource of a Stack.

    Args:
        folder: where its log goes.
        name: how messages call it.
        program: the server program; found, or built, when None.
        tell: is told, in a sentence, when starting takes long.
    """

    def __init__(
        self, folder: Path, *, name: str = "toxiproxy", program: Path | None = None, tell: Tell = lambda words: None
    ) -> None:
        self.name = name
        self.port = free_port()
        self.api = Toxiproxy(self.port)
        self._program = program
        self._folder = folder
        self._tell = tell
        self._process: ManagedProcess | None = None

    def start(self) -> Self:
        """Start it, and wait until it answers.

        Raises:
            MissingSoftware: the program is not here; the message says how to get it.
            StartFailed: it ended, or did not answer in time.
        """
        program = self._program or find_server(tell=self._tell)
        self._process = ManagedProcess(
            self.name,
            [program, "-host", "127.0.0.1", "-port", str(self.port)],
            log=self._folder / f"{self.name}.log",
            ready=self.api.running,
            ready_timeout_s=_READY_S_MAX,
        )
        self._process.start()
        return self

    def close(self) -> None:
        """End it, and give its port back."""
        if self._process is not None:
            self._process.close()
        release_port(self.port)
