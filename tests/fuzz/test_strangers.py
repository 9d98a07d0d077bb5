"""Connections that never become calls, against a coordinator in a process of its own: it is still there afterwards."""

import asyncio
import os
from pathlib import Path

import handfast
from chaos.stack import ManagedProcess, free_port, python_module
from tests.certificates import LOOPBACK, Certified, Pki

ROOT = Path(__file__).resolve().parents[2]
CONNECTIONS = 240
AT_ONCE = 8


def coordinator(folder: Path, port: int, held: Certified) -> ManagedProcess:
    """A coordinator over mutual TLS."""
    address = ["--address", f"{LOOPBACK[1]}:{port}", "--log", str(folder / "handfast.db")]
    files = ["--tls-cert", str(held.cert), "--tls-key", str(held.key), "--tls-client-ca", str(held.ca)]
    command = python_module("coordinator", "serve", *address, *files)
    return ManagedProcess("coordinator", command, log=folder / "coordinator.log", cwd=ROOT, ready="handfast is ready")


async def shout(port: int, times: int) -> int:
    """Connect so often and say something that is neither TLS nor HTTP/2; returns how often that was heard out."""
    heard = 0
    for _ in range(times):
        try:
            reader, writer = await asyncio.open_connection(LOOPBACK[1], port)
            writer.write(os.urandom(512))
            await reader.read()
            writer.close()
        except OSError:
            continue
        heard += 1
    return heard


async def test_garbage_instead_of_a_tls_handshake_does_not_end_the_coordinator(tmp_path: Path) -> None:
    pki, port = Pki(tmp_path / "tls"), free_port()
    process = coordinator(tmp_path, port, pki.coordinator())
    await asyncio.to_thread(process.start)
    try:
        heard = await asyncio.gather(*(shout(port, CONNECTIONS // AT_ONCE) for _ in range(AT_ONCE)))
        assert process.alive, process.log_tail()
        assert sum(heard) > CONNECTIONS // 2
        tls = pki.client("billing").client()
        async with handfast.connect(f"{LOOPBACK[1]}:{port}", tls=tls) as tm, tm.transaction() as txn:
            pass
        assert txn.outcome is handfast.Outcome.COMMITTED
    finally:
        await asyncio.to_thread(process.close)
