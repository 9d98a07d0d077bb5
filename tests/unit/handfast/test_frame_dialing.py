"""When a caller asks for a frame port, when it leaves off, and that it says why."""

import asyncio
from typing import Any

import pytest

from handfast.frames import FramePort, dialing
from handfast.frames.dialing import AGAIN_S, AGAIN_UNANSWERED_S, HEADER, NONE, FrameDialer

HOST = "127.0.0.1"
ADDRESS = f"{HOST}:7400"
TICKET = "0a" * 32


class Stream:
    """A stream whose server answers this, or nothing at all."""

    def __init__(self, *metadata: tuple[str, str], answers: bool = True) -> None:
        self._metadata = metadata
        self._answers = answers

    async def initial_metadata(self) -> Any:
        """See grpc.aio."""
        if not self._answers:
            await asyncio.Event().wait()
        return self._metadata


class Time:
    """Time that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        monkeypatch.setattr(dialing, "monotonic_s", lambda: self.now_s)
        monkeypatch.setattr(dialing, "OFFER_S", 0.01)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def test_it_asks_by_the_address_that_it_dials() -> None:
    assert FrameDialer(ADDRESS).question == ((HEADER, ADDRESS),)


@pytest.mark.parametrize("metadata", [((HEADER, NONE),), (), (("other", "thing"),)])
async def test_a_server_without_one_is_asked_again_at_the_next_stream(time: Time, metadata: Any) -> None:
    dialer = FrameDialer(ADDRESS)
    assert await dialer.open(Stream(*metadata)) is None
    assert dialer.question


@pytest.mark.parametrize(
    "offer",
    ["", " ", "x", ":1", f":1 {TICKET[:-2]}", f":1 {'zz' * 32}", f":0 {TICKET}", f":65536 {TICKET}", f":x {TICKET}"],
)
async def test_what_is_no_offer_leaves_frames_to_grpc_for_a_while(
    time: Time, offer: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dialer = FrameDialer(ADDRESS)
    assert await dialer.open(Stream((HEADER, offer))) is None
    assert dialer.question == ()
    assert "so frames travel over gRPC" in caplog.text


async def test_after_a_failure_it_asks_again_in_a_minute_and_says_the_same_but_once(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dialer = FrameDialer(ADDRESS)
    for _ in range(3):
        assert dialer.question
        assert await dialer.open(Stream((HEADER, f":1 {TICKET}"))) is None
        time.now_s += AGAIN_S - 1
        assert dialer.question == ()
        assert await dialer.open(Stream(answers=False)) is None, "it waits for nothing it did not ask for"
        time.now_s += 1
    assert caplog.text.count("so frames travel over gRPC") == 1


async def test_a_server_that_does_not_answer_is_asked_again_after_ten_minutes(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dialer = FrameDialer(ADDRESS)
    assert await dialer.open(Stream(answers=False)) is None
    assert "not offered in time" in caplog.text
    time.now_s += AGAIN_UNANSWERED_S - 1
    assert not dialer.question
    time.now_s += 1
    assert dialer.question


async def test_a_port_that_refuses_the_ticket_is_left_alone(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    port, dialer = FramePort(HOST), FrameDialer(ADDRESS)
    offer = port.offer(ADDRESS)
    assert offer is not None
    try:
        assert await dialer.open(Stream((HEADER, f":{port.port} {TICKET}"))) is None
    finally:
        port.close()
    assert dialer.question == ()
    assert "it was refused" in caplog.text


@pytest.mark.parametrize("host", ["", HOST, "localhost"])
async def test_the_port_is_at_the_host_that_was_dialed_unless_another_is_named(time: Time, host: str) -> None:
    port, dialer = FramePort(HOST), FrameDialer(ADDRESS)
    offer = port.offer(ADDRESS)
    assert offer is not None
    try:
        connection = await dialer.open(Stream((HEADER, f"{host}:{port.port} {offer.ticket.hex()}")))
        assert connection is not None
        (await offer.taken).abort()
        connection.abort()
        await asyncio.sleep(0)
    finally:
        port.close()
    assert dialer.question


@pytest.mark.parametrize("address", ["[::1]:7400", "::1:7400"])
async def test_ipv6_addresses_are_dialed_too(time: Time, address: str) -> None:
    port, dialer = FramePort("::1"), FrameDialer(address)
    offer = port.offer(address)
    assert offer is not None
    try:
        connection = await dialer.open(Stream((HEADER, offer.text)))
        assert connection is not None
        (await offer.taken).abort()
        connection.abort()
        await asyncio.sleep(0)
    finally:
        port.close()


async def test_whoever_gives_up_while_it_dials_leaves_no_connection(time: Time) -> None:
    came, gone = asyncio.Event(), asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            came.set()
        writer.close()
        gone.set()

    server = await asyncio.start_server(swallow, HOST, 0)
    async with server:
        number = server.sockets[0].getsockname()[1]
        dialing_it = asyncio.ensure_future(FrameDialer(ADDRESS).open(Stream((HEADER, f":{number} {TICKET}"))))
        await asyncio.wait_for(came.wait(), 5)
        dialing_it.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialing_it
        await asyncio.wait_for(gone.wait(), 5)
