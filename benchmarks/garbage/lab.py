"""Certificates, a coordinator, participants that do nothing, and the processes that talk to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lab import ROOT, Coordinator
from chaos.stack import ManagedProcess, Stack, free_port, python_module
from handfast.tls import TlsConfig

RESOURCES = ("noop0", "noop1")
READY_S_MAX = 30.0


def tls_of(folder: Path, who: str) -> TlsConfig:
    """How somebody reaches the coordinator: ``client-good``, for example."""
    return TlsConfig(folder / "ca.crt", folder / f"{who}.crt", folder / f"{who}.key")


class Lab:
    """The coordinator and what it needs.

    Args:
        stack: ends all of it.
        flags: settings of the coordinator besides those for TLS.
    """

    def __init__(self, stack: Stack, flags: Sequence[str] = ()) -> None:
        self._stack = stack
        self._count = 0
        self.tls = stack.folder("tls")
        made = [sys.executable, "-m", "coordinator", "certs", "init", str(self.tls), "--host", "127.0.0.1"]
        clients = ["--client", "good", "--client", "garbage", "--admin", "lab"]
        subprocess.run([*made, *clients], cwd=ROOT, check=True, capture_output=True)
        ports = [free_port() for _ in RESOURCES]
        participants = [
            part
            for resource, port in zip(RESOURCES, ports, strict=True)
            for part in ("--participant", f"{resource}=127.0.0.1:{port}")
        ]
        files = {"--tls-cert": "coordinator.crt", "--tls-key": "coordinator.key", "--tls-client-ca": "ca.crt"}
        secured = [part for flag, name in files.items() for part in (flag, str(self.tls / name))]
        for port in ports:
            self.run("benchmarks.servers.noop", str(port), ready="no-op is ready")
        self.coordinator = Coordinator(stack, "coordinator", [*participants, *secured, *flags]).start()

    @property
    def address(self) -> str:
        """Where the coordinator listens."""
        return self.coordinator.address

    def run(self, module: str, *arguments: str, ready: str = "") -> ManagedProcess:
        """Start a program, and wait until it says that it is ready when it will."""
        self._count += 1
        name = f"{module.rpartition('.')[2]}-{self._count}"
        process = ManagedProcess(
            name,
            python_module(module, *arguments),
            log=self._stack.path / f"{name}.log",
            cwd=ROOT,
            ready=ready or None,
            ready_timeout_s=READY_S_MAX,
        )
        return self._stack.start(process)
