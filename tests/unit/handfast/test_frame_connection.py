"""A frame connection, byte by byte, beside a model: a list of frames."""

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.frames import connection as frame_connection
from handfast.frames.connection import KEPT_BYTES, TURN_BYTES, WAITING_BYTES_MAX, FrameConnection, FrameTooLarge
from tests.fuzz.profile import bounded
from tests.unit.handfast.frame_callers import LOOPS
from tests.unit.handfast.frame_transport import END, FakeTransport, announced, framed, greeted
from tests.waiting import eventually

GREETING = b"a greeting"
FRAMES = st.lists(st.binary(min_size=1, max_size=40), max_size=12)


@st.composite
def segments(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The bytes, in the pieces in which a network may bring them."""
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=20)))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if begin < end]


async def written(connection: FrameConnection, frame: bytes) -> None:
    """Write a frame, and return when the next may be written."""
    pending = connection.write(frame)
    if pending is not None:
        await pending


def noting(told: list[bytes]) -> FrameConnection:
    """One that takes note of how it is greeted."""

    def welcome(_: FrameConnection, greeting: bytes) -> bool:
        told.append(greeting)
        return True

    return FrameConnection(welcome, len(GREETING))


async def all_of(connection: FrameConnection) -> list[bytes]:
    """What can be read before there is no more."""
    read = []
    while (frame := await connection.read()) is not None:
        read.append(frame)
    return read


@bounded(150)
@given(frames=FRAMES, data=st.data())
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(frames: list[bytes], data: st.DataObject) -> None:
    pieces = data.draw(segments(GREETING + framed(*frames)))

    async def scenario() -> None:
        told: list[bytes] = []
        connection = noting(told)
        FakeTransport(connection)
        for piece in pieces:
            connection.data_received(piece)
        connection.connection_lost(None)
        assert told == [GREETING]
        assert await all_of(connection) == frames
        assert connection.used is bool(frames)

    asyncio.run(scenario())


@bounded(60)
@given(frames=FRAMES, left_out=st.integers(1, 100), data=st.data())
def test_a_frame_that_did_not_come_whole_is_none(frames: list[bytes], left_out: int, data: st.DataObject) -> None:
    whole = framed(*frames, bytes(96))
    pieces = data.draw(segments(whole[: len(whole) - left_out]))

    async def scenario() -> None:
        connection, _ = greeted()
        for piece in pieces:
            connection.data_received(piece)
        connection.connection_lost(ConnectionResetError())
        assert await all_of(connection) == frames

    asyncio.run(scenario())


async def test_a_greeting_that_is_not_welcome_ends_it_and_what_came_along_is_not_read() -> None:
    connection = FrameConnection(lambda _, greeting: False, len(GREETING))
    transport = FakeTransport(connection)
    connection.data_received(GREETING + framed(b"a frame"))
    assert transport.aborted
    connection.connection_lost(None)
    assert await all_of(connection) == []
    assert not connection.used


async def test_half_a_greeting_tells_nobody_anything() -> None:
    told: list[bytes] = []
    connection = noting(told)
    transport = FakeTransport(connection)
    connection.data_received(GREETING[:-1])
    assert told == []
    assert not transport.aborted


async def test_the_largest_frame_is_taken_and_one_byte_more_ends_it_after_what_came_before() -> None:
    connection, transport = greeted(frame_bytes_max=100)
    connection.data_received(framed(bytes(100)))
    assert await connection.read() == bytes(100)
    connection.data_received(framed(b"before") + announced(101))
    assert transport.aborted
    connection.data_received(framed(b"after"))
    connection.connection_lost(None)
    assert await connection.read() == b"before"
    with pytest.raises(FrameTooLarge, match="101 bytes, more than 100"):
        await connection.read()


async def test_after_the_mark_of_the_end_nothing_is_read() -> None:
    connection, transport = greeted()
    connection.data_received(framed(b"the last") + END + framed(b"and yet another"))
    connection.data_received(framed(b"and one more"))
    assert connection.finished
    assert await all_of(connection) == [b"the last"]
    assert not transport.aborted


async def test_a_reader_that_waits_is_told_of_the_end() -> None:
    connection, _ = greeted()
    reading = asyncio.ensure_future(connection.read())
    await asyncio.sleep(0)
    connection.connection_lost(None)
    assert await asyncio.wait_for(reading, 5) is None


# -- back pressure -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 100, 60_000])
async def test_no_more_is_taken_in_than_may_wait_whatever_it_comes_in(size: int) -> None:
    connection, transport = greeted(frame_bytes_max=2**20)
    kept = 0
    while transport.is_reading():
        connection.data_received(framed(bytes(size)))
        kept += size + KEPT_BYTES
        assert kept <= WAITING_BYTES_MAX + size + KEPT_BYTES, "it reads on"
    assert kept > WAITING_BYTES_MAX
    while not transport.is_reading():
        assert await connection.read() == bytes(size)
        kept -= size + KEPT_BYTES
    assert kept == 0


async def test_reading_goes_on_after_each_pause() -> None:
    connection, transport = greeted(frame_bytes_max=2**20)
    for _ in range(3):
        connection.data_received(framed(bytes(WAITING_BYTES_MAX), b"another"))
        assert not transport.is_reading()
        assert await connection.read() == bytes(WAITING_BYTES_MAX)
        assert not transport.is_reading()
        assert await connection.read() == b"another"
        assert transport.is_reading()


async def test_what_was_taken_in_is_read_after_a_connection_was_lost_in_a_pause() -> None:
    connection, transport = greeted(frame_bytes_max=2**20)
    connection.data_received(framed(bytes(WAITING_BYTES_MAX)))
    connection.connection_lost(None)
    assert await all_of(connection) == [bytes(WAITING_BYTES_MAX)]
    assert not transport.is_reading(), "a transport that has ended can't be resumed"


async def test_a_writer_waits_while_the_peer_does_not_read() -> None:
    connection, transport = greeted()
    await written(connection, b"one")
    connection.pause_writing()
    writing = asyncio.ensure_future(written(connection, b"two"))
    await asyncio.sleep(0)
    assert not writing.done()
    connection.resume_writing()
    await asyncio.wait_for(writing, 5)
    assert bytes(transport.written) == framed(b"one", b"two")


async def test_a_writer_that_waits_is_released_by_the_end_and_writes_no_more() -> None:
    connection, transport = greeted()
    connection.pause_writing()
    writing = asyncio.ensure_future(written(connection, b"one"))
    await asyncio.sleep(0)
    connection.connection_lost(None)
    await asyncio.wait_for(writing, 5)
    await written(connection, b"two")
    assert bytes(transport.written) == framed(b"one")


async def test_whoever_reads_lets_others_have_their_turn() -> None:
    connection, _ = greeted()
    connection.data_received(framed(*[b"x"] * 2_000))
    connection.end_reading()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)

    reading = asyncio.ensure_future(all_of(connection))
    await other()
    assert len(reading.result()) == 2_000
    assert turns >= 2_000 * (1 + KEPT_BYTES) // TURN_BYTES - 2


async def test_on_a_connection_that_is_being_ended_nothing_is_written() -> None:
    """The transport would say so in the log."""
    connection, transport = greeted()
    connection.abort()
    await written(connection, b"one")
    assert bytes(transport.written) == b""


# -- its end -------------------------------------------------------------------------------------------------------


async def test_an_end_before_it_began_is_kept_in_mind() -> None:
    connection = FrameConnection(lambda _, greeting: True, 0)
    connection.abort()
    assert FakeTransport(connection).aborted


async def test_finishing_says_so_and_waits_for_the_peer_and_reads_nothing_any_more() -> None:
    connection, transport = greeted(frame_bytes_max=2**20)
    connection.data_received(framed(bytes(WAITING_BYTES_MAX)))
    await written(connection, b"the last")
    finishing = asyncio.ensure_future(connection.finish(60))
    await eventually(lambda: bytes(transport.written) == framed(b"the last") + END)
    assert transport.is_reading(), "a socket that is closed with something unread takes back what was written"
    connection.data_received(framed(b"too late"))
    assert not finishing.done()
    connection.connection_lost(None)
    await asyncio.wait_for(finishing, 5)
    assert await all_of(connection) == []


async def test_finishing_is_cut_short_when_the_peer_takes_its_time() -> None:
    connection, transport = greeted()
    await connection.finish(0.01)
    assert transport.aborted


async def test_a_connection_has_failed_when_it_broke_by_itself_with_nothing_back_for_what_was_written() -> None:
    connection, _ = greeted()
    await written(connection, b"asked")
    connection.connection_lost(None)
    assert connection.failed


@pytest.mark.parametrize("then", ["nothing written", "something came", "the peer finished", "ended here"])
async def test_another_end_is_no_failure(then: str) -> None:
    connection, _ = greeted()
    if then != "nothing written":
        await written(connection, b"asked")
    if then == "something came":
        connection.data_received(framed(b"an answer"))
    if then == "the peer finished":
        connection.data_received(END)
    if then == "ended here":
        connection.abort()
    connection.connection_lost(None)
    assert not connection.failed


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have connections ask after milliseconds."""
    monkeypatch.setattr(frame_connection, "KEEPALIVE_TIME_MS", 20)
    monkeypatch.setattr(frame_connection, "KEEPALIVE_TIMEOUT_MS", 20)


PING = announced(2**32 - 1)


async def test_whoever_is_asked_whether_it_is_there_says_so_between_two_frames() -> None:
    connection, transport = greeted()
    connection.data_received(framed(b"one") + PING + framed(b"two"))
    assert bytes(transport.written) == PING
    connection.end_reading()
    assert await all_of(connection) == [b"one", b"two"]


async def test_whoever_asks_without_end_is_cut_off() -> None:
    connection, transport = greeted()
    connection.data_received(PING)
    assert bytes(transport.written) == PING
    connection.data_received(framed(b"one") + PING)
    assert transport.aborted
    assert bytes(transport.written) == PING
    connection.connection_lost(None)
    assert await connection.read() == b"one"
    with pytest.raises(FrameTooLarge):
        await connection.read()


async def test_whoever_asks_and_does_not_read_is_not_answered() -> None:
    connection, transport = greeted()
    connection.pause_writing()
    connection.data_received(PING)
    assert bytes(transport.written) == b""


@pytest.mark.usefixtures("hasty")
async def test_a_caller_asks_when_it_has_heard_nothing_and_gives_up_whoever_does_not_answer() -> None:
    connection, transport = greeted()
    connection.keep_asking()
    await eventually(lambda: bytes(transport.written) == PING)
    assert not transport.aborted
    await eventually(lambda: transport.aborted)
    assert bytes(transport.written) == PING


@pytest.mark.usefixtures("hasty")
async def test_a_caller_that_is_answered_goes_on_and_does_not_answer_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection, transport = greeted()
    asked = 0

    def write(data: bytes) -> None:
        nonlocal asked
        asked += 1
        asyncio.get_running_loop().call_soon(connection.data_received, data)

    monkeypatch.setattr(transport, "write", write)
    connection.keep_asking()
    await eventually(lambda: asked == 3)
    assert not transport.aborted
    connection.connection_lost(None)


@pytest.mark.usefixtures("hasty")
async def test_whoever_reads_nothing_for_now_says_now_and_then_that_it_is_there() -> None:
    connection, transport = greeted(frame_bytes_max=2**20)
    connection.data_received(framed(bytes(WAITING_BYTES_MAX)))
    await eventually(lambda: bytes(transport.written) == 2 * PING)
    await connection.read()
    said = len(transport.written)
    connection.connection_lost(None)
    assert len(transport.written) == said
    assert connection._says is not None
    assert connection._says.cancelled()


@pytest.mark.usefixtures("hasty")
async def test_a_caller_that_does_not_take_what_came_gives_nobody_up() -> None:
    connection, transport = greeted(frame_bytes_max=2**20)
    connection.keep_asking()
    connection.data_received(framed(bytes(WAITING_BYTES_MAX)))
    heard_s = connection._heard_s
    await eventually(lambda: connection._heard_s > heard_s)  # it would have asked
    assert bytes(transport.written) == b""
    assert not transport.aborted
    connection.connection_lost(None)


@LOOPS
def test_one_that_ended_after_its_last_bytes_had_gone_out_may_be_ended_again(loop: Any) -> None:
    async def scenario() -> None:
        mine, other = socket.socketpair()
        connection = FrameConnection(lambda _, greeting: True, 1)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, mine)
        reader, writer = await asyncio.open_unix_connection(sock=other)
        connection.write(bytes(2**20))
        connection.close()
        assert not connection.ended, "or there is nothing left to go out"
        assert len(await reader.read()) == 4 + 2**20
        await eventually(lambda: connection.ended)
        connection.abort()
        writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())
