"""A frame port on loopback: who is let in, who is cut off, and that nothing is left of them."""

import asyncio
import errno
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from handfast.frames import FramePort, ports
from handfast.frames.connection import MAGIC, TICKET_BYTES
from tests.certificates import Pki
from tests.unit.handfast.frame_callers import (
    ADDRESS,
    HOST,
    LOCAL,
    LOOPS,
    TCP,
    WAIT_S,
    WAYS,
    Caller,
    offered,
    on,
    sockets,
    taken,
)
from tests.unit.handfast.frame_transport import framed
from tests.waiting import eventually

# -- tickets -------------------------------------------------------------------------------------------------------


@LOOPS
@WAYS
def test_a_ticket_opens_a_connection_and_what_came_along_is_its_first_frames(loop: Any, way: str) -> None:
    async def scenario(port: FramePort) -> None:
        offer = offered(port)
        caller = await (await Caller.to(port, way=way)).says(MAGIC + offer.ticket + framed(b"one", b"two"))
        assert await caller.is_welcome()
        connection = await taken(offer)
        assert [await connection.read(), await connection.read()] == [b"one", b"two"]
        caller.leave()
        assert await asyncio.wait_for(connection.read(), WAIT_S) is None

    on(loop, scenario)


@LOOPS
def test_a_greeting_may_come_byte_by_byte(loop: Any) -> None:
    async def scenario(port: FramePort) -> None:
        offer = offered(port)
        caller = await Caller.to(port)
        for byte in MAGIC + offer.ticket:
            assert not offer.taken.done()
            await caller.says(bytes([byte]))
            await asyncio.sleep(0)
        assert await caller.is_welcome()
        (await taken(offer)).abort()
        caller.leave()

    on(loop, scenario)


@LOOPS
@WAYS
@pytest.mark.parametrize("said", ["no ticket", "no magic", "half a ticket", "another protocol"])
def test_who_has_no_ticket_is_cut_off_without_a_word(loop: Any, way: str, said: str) -> None:
    async def scenario(port: FramePort) -> None:
        offer = offered(port)
        data = {
            "no ticket": MAGIC + os.urandom(TICKET_BYTES),
            "no magic": b"HANDFAST" + offer.ticket,
            "half a ticket": MAGIC + offer.ticket[:16] + bytes(16),
            "another protocol": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n" + bytes(40),
        }[said]
        assert await (await (await Caller.to(port, way=way)).says(data)).is_cut_off()
        assert not offer.taken.done()
        honest = await (await Caller.to(port, way=way)).says(MAGIC + offer.ticket)
        assert await honest.is_welcome()
        (await taken(offer)).abort()
        honest.leave()

    on(loop, scenario)


@LOOPS
@WAYS
def test_a_ticket_is_good_for_one_connection(loop: Any, way: str) -> None:
    async def scenario(port: FramePort) -> None:
        offer, another = offered(port), offered(port)
        first = await (await Caller.to(port, way=way)).says(MAGIC + offer.ticket)
        assert await first.is_welcome()
        assert await (await (await Caller.to(port, way=way)).says(MAGIC + offer.ticket)).is_cut_off()
        assert not another.taken.done()
        (await taken(offer)).abort()
        first.leave()

    on(loop, scenario)


@LOOPS
@WAYS
@pytest.mark.parametrize("why", ["withdrawn", "expired"])
def test_a_ticket_that_is_no_longer_good_opens_nothing(
    loop: Any, way: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "TICKET_S", 0.01 if why == "expired" else 60.0)

    async def scenario(port: FramePort) -> None:
        offer = offered(port)
        if why == "withdrawn":
            port.withdraw(offer)
        caller = await Caller.to(port, way=way)
        await eventually(lambda: not port.lets_in)
        await caller.says(MAGIC + offer.ticket)
        monkeypatch.setattr(ports, "TICKET_S", 60.0)
        offered(port)  # or nobody would look
        assert await caller.is_cut_off()
        assert not offer.taken.done()

    on(loop, scenario)


@LOOPS
@WAYS
def test_without_a_ticket_out_nobody_is_let_in(loop: Any, way: str) -> None:
    async def scenario(port: FramePort) -> None:
        stranger = await (await Caller.to(port, way=way)).says(bytes(100))
        before = sockets()
        for _ in range(10):
            await asyncio.sleep(0)
        assert sockets() == before
        offered(port)
        assert await stranger.is_cut_off()

    on(loop, scenario)


# -- strangers -----------------------------------------------------------------------------------------------------


@LOOPS
@WAYS
@pytest.mark.parametrize("said", [b"", MAGIC, MAGIC + bytes(TICKET_BYTES - 1)])
def test_who_does_not_greet_in_time_is_cut_off(
    loop: Any, way: str, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "GREETING_S", 0.05)

    async def scenario(port: FramePort) -> None:
        offered(port)
        assert await (await (await Caller.to(port, way=way)).says(said)).is_cut_off()

    on(loop, scenario)


@LOOPS
@pytest.mark.parametrize(
    ("way", "secure"), [(TCP, False), (LOCAL, False), (TCP, True)], ids=["plain text", "local", "TLS"]
)
def test_of_too_many_strangers_the_oldest_are_cut_off(
    loop: Any, way: str, secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "GREETING_S", 60.0)
    held = Pki(tmp_path / "pki").coordinator()

    async def scenario(port: FramePort) -> None:
        offer = offered(port)
        strangers = [await Caller.to(port, way=way) for _ in range(2 * ports.STRANGERS_MAX + 1)]
        gone = await asyncio.gather(*(one.is_cut_off() for one in strangers[: ports.STRANGERS_MAX]))
        assert all(gone), "one who is cut off in its TLS handshake counts as well"
        context = _context(held.client()) if secure else None
        honest = await (await Caller.to(port, way=way, ssl=context)).says(MAGIC + offer.ticket)
        assert await honest.is_welcome()
        (await taken(offer)).abort()
        for one in (honest, *strangers):
            one.leave()

    on(loop, scenario, tls=held.server().files() if secure else None)


@LOOPS
def test_as_many_as_have_tickets_may_come_at_once(loop: Any) -> None:
    async def scenario(port: FramePort) -> None:
        offers = [offered(port) for _ in range(2 * ports.STRANGERS_MAX)]
        callers = [await Caller.to(port) for _ in offers]
        await eventually(lambda: port.strangers == len(callers))
        for caller, offer in zip(callers, offers, strict=True):
            await caller.says(MAGIC + offer.ticket)
        assert all([await caller.is_welcome() for caller in callers])
        for caller, offer in zip(callers, offers, strict=True):
            (await taken(offer)).abort()
            caller.leave()

    on(loop, scenario)


@LOOPS
@WAYS
@pytest.mark.parametrize("said", [b"", bytes(100)], ids=["leaves at once", "has no ticket"])
def test_each_stranger_holds_up_the_next_for_a_while(
    loop: Any, way: str, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "STRANGER_S", 3600.0)

    async def scenario() -> None:
        port = FramePort(HOST)
        offer = offered(port)
        welcome = [await Caller.to(port, way=way) for _ in range(3)]
        await eventually(lambda: port.strangers == 3)
        await welcome[0].says(said)
        if not said:
            welcome[0].leave()
        await eventually(lambda: port.strangers == 2)
        late = await (await Caller.to(port, way=way)).says(MAGIC + offer.ticket)
        await welcome[1].says(MAGIC + offer.ticket)
        assert await welcome[1].is_welcome(), "who is in is not held up"
        assert port.strangers == 1
        (await taken(offer)).abort()
        for one in (late, *welcome):
            one.leave()
        port.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


@LOOPS
@WAYS
def test_out_of_descriptors_is_said_and_the_next_ticket_tries_again(
    loop: Any, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept = socket.socket.accept

    def refuse(_: socket.socket) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    async def scenario(port: FramePort) -> None:
        monkeypatch.setattr(socket.socket, "accept", refuse)
        offered(port)
        stranger = await Caller.to(port, way=way)
        await eventually(lambda: "Too many open files" in caplog.text)
        for _ in range(10):
            await asyncio.sleep(0)
        assert caplog.text.count("Too many open files") == 1
        monkeypatch.setattr(socket.socket, "accept", accept)
        offer = offered(port)
        caller = await (await Caller.to(port, way=way)).says(MAGIC + offer.ticket)
        assert await caller.is_welcome()
        (await taken(offer)).abort()
        for one in (stranger, caller):
            one.leave()

    on(loop, scenario)


@LOOPS
@WAYS
def test_a_port_that_is_closed_cuts_off_strangers_and_leaves_streams_their_connections(loop: Any, way: str) -> None:
    async def scenario(port: FramePort) -> None:
        offer = offered(port)
        offered(port)
        caller = await (await Caller.to(port, way=way)).says(MAGIC + offer.ticket)
        assert await caller.is_welcome()
        stranger = await (await Caller.to(port, way=way)).says(MAGIC)
        await eventually(lambda: port.strangers == 1)
        port.close()
        assert await stranger.is_cut_off()
        assert port.offer(ADDRESS) is None
        with pytest.raises(ConnectionRefusedError):
            await Caller.to(port, way=way)
        connection = await taken(offer)
        await caller.says(framed(b"still there"))
        assert await asyncio.wait_for(connection.read(), WAIT_S) == b"still there"
        connection.abort()
        caller.leave()

    on(loop, scenario)


# -- where it is ---------------------------------------------------------------------------------------------------


async def test_the_offer_names_the_place_for_whoever_dialed() -> None:
    port = FramePort(HOST, via={"proxy:9": "proxy:10"})
    try:
        offer, by_proxy = port.offer("other:7"), port.offer("proxy:9")
        assert offer is not None
        assert by_proxy is not None
        assert offer.text == f":{port.port} {offer.ticket.hex()}"
        assert by_proxy.text.startswith("proxy:10 ")
        assert len({offer.ticket, by_proxy.ticket}) == 2
    finally:
        port.close()


@pytest.mark.parametrize(
    ("host", "found"),
    [("::1", ["::1"]), ("::", ["::1", HOST]), ("0.0.0.0", ["::1", HOST]), ("localhost", ["localhost"])],  # noqa: S104 # what a container listens on
)
async def test_it_is_found_at_every_address_of_its_host(host: str, found: list[str]) -> None:
    port = FramePort(host)
    try:
        for one in found:
            (await Caller.to(port, one)).leave()
    finally:
        port.close()


async def test_a_port_that_is_taken_can_not_be_had() -> None:
    first = FramePort(HOST)
    try:
        with pytest.raises(OSError, match="in use"):
            FramePort(HOST, first.port)
    finally:
        first.close()


# -- TLS -----------------------------------------------------------------------------------------------------------


def _context(tls: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.files().load_into(context)
    return context


@LOOPS
@pytest.mark.parametrize("shown", ["nothing", "another authority's"])
def test_where_clients_show_certificates_a_ticket_alone_opens_nothing(loop: Any, shown: str, tmp_path: Path) -> None:
    pki, others = Pki(tmp_path / "pki"), Pki(tmp_path / "others")
    held = pki.coordinator()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(held.ca)
    if shown == "another authority's":
        liar = others.client("billing")
        context.load_cert_chain(liar.cert, liar.key)

    async def scenario(port: FramePort) -> None:
        offer = offered(port)
        try:
            caller = await Caller.to(port, ssl=context)
            await caller.says(MAGIC + offer.ticket)
        except OSError:  # TLS 1.3 lets a client go on before it is told
            pass
        else:
            assert not await caller.is_welcome()
            caller.leave()
        assert not offer.taken.done()

    on(loop, scenario, tls=held.server().files())


@LOOPS
def test_plain_text_opens_nothing_on_a_tls_port(loop: Any, tmp_path: Path) -> None:
    async def scenario(port: FramePort) -> None:
        offer = offered(port)
        caller = await (await Caller.to(port)).says(MAGIC + offer.ticket)
        assert not await caller.is_welcome()
        caller.leave()
        assert not offer.taken.done()

    on(loop, scenario, tls=Pki(tmp_path / "pki").coordinator().server().files())


@LOOPS
def test_the_next_connection_is_shown_the_certificate_that_replaced_the_first(loop: Any, tmp_path: Path) -> None:
    old, new = Pki(tmp_path / "old"), Pki(tmp_path / "new")
    held = old.coordinator()

    async def scenario(port: FramePort) -> None:
        for pki in (old, new):
            offer = offered(port)
            caller = await Caller.to(port, ssl=_context(pki.client("billing").client()))
            assert await (await caller.says(MAGIC + offer.ticket)).is_welcome()
            (await taken(offer)).abort()
            caller.leave()
            held.replace_by(new.coordinator())

    on(loop, scenario, tls=held.server().files())


async def test_files_that_did_not_change_are_not_said_to_be_read_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pki = Pki(tmp_path / "pki")
    caplog.set_level("INFO")
    port = FramePort(HOST, tls=pki.coordinator().server().files())
    try:
        offer = offered(port)
        caller = await Caller.to(port, ssl=_context(pki.client("billing").client()))
        assert await (await caller.says(MAGIC + offer.ticket)).is_welcome()
        (await taken(offer)).abort()
        caller.leave()
    finally:
        port.close()
    assert "read anew" not in caplog.text
