"""Frames beside gRPC are as safe as over it: the same certificates, names and tokens, and no plain text beside TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

import handfast
from chaos.stack import free_port
from handfast.frames import COORDINATOR, PARTICIPANT, CallStream, FramePort, server_options
from handfast.frames.dialing import HEADER, FrameDialer
from handfast.tls import ServerTls, frame_dialer, open_channel
from handfast.v1 import coordinator_pb2 as c
from participant import Participant
from participant.testing import MemoryResource
from tests.certificates import Certified
from tests.integration.beside import connections, offer_of, raw_stream
from tests.integration.coordinator.edge import Edge
from tests.integration.security.secured import Secured, pki_in, secured
from tests.integration.security.test_who_may_what import serving_with_tokens, token_file
from tests.waiting import eventually

HOST = "127.0.0.1"
NAME = "coordinator.handfast"


async def test_every_frame_connection_has_tls_where_grpc_has(tmp_path: Path) -> None:
    pki = pki_in(tmp_path)
    accounts = Secured("accounts", pki.participant("accounts"))
    async with secured(pki, accounts) as edge:
        await edge.as_(accounts.held).register(accounts)
        async with handfast.connect(edge.server.address, tls=pki.client("billing").client(NAME)) as tm:
            result = await tm.execute([("accounts", "work", b"")])
            assert result.outcome is handfast.Outcome.COMMITTED
            for port in (edge.server.frame_port, accounts.frame_port):
                assert connections(port) == 1
                assert port is not None
                assert port.secure


async def test_a_transaction_belongs_to_who_began_it_over_the_connection_too(tmp_path: Path) -> None:
    pki = pki_in(tmp_path)
    async with secured(pki) as edge:
        address = edge.server.address
        async with (
            handfast.connect(address, tls=pki.client("billing").client(NAME)) as owner,
            handfast.connect(address, tls=pki.client("other").client(NAME)) as other,
            owner.transaction() as txn,
        ):
            with pytest.raises(handfast.Refused, match="another's"):
                await other.rollback(txn.gtrid)
            assert connections(edge.server.frame_port) == 2


# -- the same name in the certificate ------------------------------------------------------------------------------


class Impostor:
    """A server with a certificate of the same authority, on another's name; takes note of what it is told."""

    def __init__(self, held: Certified) -> None:
        self.told = b""
        self.visits = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        held.server().files().load_into(self._context)

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        """Serve."""
        server = await asyncio.start_server(self._take, HOST, port)
        async with server:
            yield

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await writer.start_tls(self._context)
            self.told += await reader.readexactly(40)
        writer.close()


async def test_a_ticket_is_told_to_nobody_but_the_one_that_grpc_speaks_to(tmp_path: Path) -> None:
    pki, elsewhere = pki_in(tmp_path), free_port()
    impostor = Impostor(pki.client("mallory"))
    address = f"{HOST}:{free_port()}"
    async with (
        impostor.listening(elsewhere),
        secured(pki, address=address, frame_via={address: f"{HOST}:{elsewhere}"}) as edge,
        handfast.connect(address, tls=pki.client("billing").client(NAME)) as tm,
    ):
        async with tm.transaction() as txn:
            pass
        assert txn.outcome is handfast.Outcome.COMMITTED
        assert connections(edge.server.frame_port) == 0
    assert impostor.visits == 1
    assert impostor.told == b""


async def test_the_name_that_counts_is_the_one_that_was_dialed_wherever_the_port_is(tmp_path: Path) -> None:
    pki, port, elsewhere = pki_in(tmp_path), free_port(), free_port()
    address = f"localhost:{free_port()}"
    via = {address: f"127.0.0.2:{elsewhere}"}  # in nobody's certificate
    async with (
        secured(pki, address=address, frame_address=f"{HOST}:{port}", frame_via=via) as edge,
        _relayed("127.0.0.2", elsewhere, port),
        handfast.connect(address, tls=pki.client("billing").client()) as tm,
    ):
        async with tm.transaction():
            assert connections(edge.server.frame_port) == 1


@asynccontextmanager
async def _relayed(host: str, port: int, to: int) -> AsyncIterator[None]:
    """A port of loopback under another address."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                writer.write(data)
        writer.close()

    writers: list[asyncio.StreamWriter] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, to)
        except OSError:
            writer.transport.abort()  # nobody is there
            return
        writers.append(far_writer)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(relay, host, port)
    async with server:
        yield
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # what was cut is closed with the loop's next turn


# -- plain text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [False, True], ids=["without server_tls", "with server_tls"])
async def test_a_participant_offers_no_plain_port_on_a_stream_with_tls(tmp_path: Path, told: bool) -> None:
    pki = pki_in(tmp_path)
    held = pki.participant("stock")
    mine = ServerTls(held.cert, held.key, held.ca)
    server = grpc.aio.server(options=server_options())
    port = server.add_secure_port(f"{HOST}:0", mine.credentials())
    address = f"{HOST}:{port}"
    stock: Participant[Any] = Participant(
        "stock", MemoryResource(), coordinator=f"{HOST}:9", address=address, server_tls=mine if told else None
    )
    stock.add_to_server(server)
    await server.start()
    async with stock, open_channel(address, pki.coordinator().client("stock.participant.handfast")) as channel:
        stream = raw_stream(channel, PARTICIPANT.connect_path, address)
        assert (await offer_of(stream) != "none") is told
        stream.cancel()
    await server.stop(None)


async def test_who_speaks_tls_never_speaks_plain_text_to_a_frame_port(tmp_path: Path) -> None:
    """As behind a proxy that ends TLS: the coordinator sees a stream without, and offers its plain port."""
    port = FramePort(HOST)
    dialer = frame_dialer(f"{HOST}:7400", pki_in(tmp_path).client("billing").client())
    offer = port.offer(f"{HOST}:7400")
    assert dialer is not None
    assert offer is not None
    try:
        assert await dialer.open(_Stream(offer.text)) is None
        assert not offer.taken.done()
    finally:
        port.close()


class _Stream:
    def __init__(self, offer: str) -> None:
        self._offer = offer

    async def initial_metadata(self) -> Any:
        return ((HEADER, self._offer),)


async def test_who_speaks_plain_text_opens_nothing_at_a_port_with_tls(tmp_path: Path) -> None:
    port = FramePort(HOST, tls=pki_in(tmp_path).coordinator().server().files())
    offer = port.offer(f"{HOST}:7400")
    assert offer is not None
    try:
        assert await FrameDialer(f"{HOST}:7400").open(_Stream(offer.text)) is None
        assert not offer.taken.done()
    finally:
        port.close()


# -- tokens --------------------------------------------------------------------------------------------------------


async def test_without_a_known_token_no_ticket_is_told(tmp_path: Path) -> None:
    async with serving_with_tokens(tmp_path, b1="client/billing") as (edge, _):
        for metadata in ((), (("authorization", "Bearer nonsense"),)):
            stream = raw_stream(edge.channel, COORDINATOR.connect_path, edge.server.address, *metadata)
            assert await offer_of(stream) == "no answer"
            assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
        assert edge.server.frame_port is not None
        assert not edge.server.frame_port.lets_in


async def test_a_token_tells_who_asks_over_the_connection(tmp_path: Path) -> None:
    async with serving_with_tokens(tmp_path, b1="client/billing", b2="client/other") as (edge, _):
        address = edge.server.address
        async with (
            handfast.connect(address, token_file=token_file(tmp_path, "b1")) as owner,
            handfast.connect(address, token_file=token_file(tmp_path, "b2")) as other,
            owner.transaction() as txn,
        ):
            with pytest.raises(handfast.Refused, match="another's"):
                await other.rollback(txn.gtrid)
            assert connections(edge.server.frame_port) == 2


# -- renewal -------------------------------------------------------------------------------------------------------


async def test_the_next_connection_uses_certificates_that_were_replaced(tmp_path: Path) -> None:
    old, new = pki_in(tmp_path / "old"), pki_in(tmp_path / "new")
    held = old.client("billing")
    async with secured(old) as edge:
        for pki in (old, new):
            async with _asked(edge, held.client(NAME)):
                assert connections(edge.server.frame_port) == 1
            await eventually(lambda: connections(edge.server.frame_port) == 0)
            if pki is old:
                edge.held.replace_by(new.coordinator())
                held.replace_by(new.client("billing"))


@asynccontextmanager
async def _asked(edge: Edge, tls: handfast.TlsConfig) -> AsyncIterator[None]:
    """A connection that was used."""
    channel = open_channel(edge.server.address, tls)
    calls = CallStream(channel, COORDINATOR, dialer=frame_dialer(edge.server.address, tls))
    await calls.ask(c.BeginRequest(), timeout_s=10)
    yield
    await calls.close()
    await channel.close(None)
