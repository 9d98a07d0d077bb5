"""More processes than the bank has: other coordinators, and further instances of its services."""

from __future__ import annotations

from pathlib import Path

from chaos.admin import Admin
from chaos.stack import ManagedProcess, free_port, python_module

REPOSITORY = Path(__file__).resolve().parents[3]


class Coordinator(ManagedProcess):
    """A coordinator of its own.

    Args:
        folder: for its log, unless ``log`` names another.
        flags: of `handfast serve`, as ``("--sweep-interval-s", "1")``.
        log: the decision log.
        address: where it listens; a free port when empty.
        failpoint: where it shall crash.
    """

    def __init__(
        self,
        folder: Path,
        *flags: str,
        log: Path | None = None,
        address: str = "",
        failpoint: str = "",
    ) -> None:
        self.address = address or f"127.0.0.1:{free_port()}"
        self.admin = Admin(self.address)
        settings = ("--address", self.address, "--log", str(log or folder / "handfast.db"), *flags)
        super().__init__(
            "coordinator",
            python_module("coordinator", "serve", *settings),
            log=folder / "coordinator.log",
            env={"HANDFAST_FAILPOINT": failpoint},
            cwd=REPOSITORY,
            ready="handfast is ready",
            ready_timeout_s=20,
        )


def bank_service(folder: Path, service: str, dsn: str, coordinator: str) -> tuple[ManagedProcess, str]:
    """One instance of a bank service. Returns the process, not started, and where it will listen."""
    port = free_port()
    flags = ("--dsn", dsn, "--port", str(port), "--coordinator", coordinator)
    process = ManagedProcess(
        f"{service}-{port}",
        python_module("examples.bank", service, *flags),
        log=folder / f"{service}-{port}.log",
        cwd=REPOSITORY,
        ready=f"{service} is ready",
        ready_timeout_s=20,
    )
    return process, f"127.0.0.1:{port}"
