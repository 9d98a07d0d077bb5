"""Reports over TLS: the server is checked, and a client shows a certificate where one is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from handfast.v1 import admin_pb2_grpc
from tests.architecture.source_tree import REPOSITORY
from tests.unit.cli.conftest import RunCommand
from tests.unit.cli.fake_admin import FakeAdmin
from tests.unit.cli.sample_answers import answers

KEYS = REPOSITORY / "tests" / "integration" / "coordinator" / "tls"
TRUSTING = ("--tls-ca", str(KEYS / "server.pem"))
SHOWING = ("--client-cert", str(KEYS / "other.pem"), "--client-key", str(KEYS / "other.key"))


@pytest.fixture
async def guarded_address() -> AsyncIterator[str]:
    """A coordinator that speaks TLS only, to clients that show the certificate `other`."""
    server = grpc.aio.server()
    admin_pb2_grpc.add_AdminServicer_to_server(FakeAdmin(answers=cast(Any, answers())), server)
    credentials = grpc.ssl_server_credentials(
        [((KEYS / "server.key").read_bytes(), (KEYS / "server.pem").read_bytes())],
        root_certificates=(KEYS / "other.pem").read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(None)


async def test_a_report_comes_over_tls_with_a_certificate_on_both_sides(
    handfast: RunCommand, guarded_address: str
) -> None:
    ran = await handfast("status", "--address", guarded_address, *TRUSTING, *SHOWING)
    assert (ran.code, ran.err) == (0, "")
    assert "k3v9q2xw" in ran.out


@pytest.mark.parametrize(
    "options",
    [(), TRUSTING, ("--tls-ca", str(KEYS / "other.pem"), *SHOWING)],
    ids=["plain text", "no certificate shown", "a server that is not trusted"],
)
async def test_a_connection_that_tls_refuses_counts_as_unreachable(
    handfast: RunCommand, guarded_address: str, options: tuple[str, ...]
) -> None:
    ran = await handfast("status", "--address", guarded_address, *options)
    assert ran.code == 3
    assert f"No coordinator answers at {guarded_address}: " in ran.err
