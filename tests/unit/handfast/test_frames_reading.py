"""Bytes that are no message: answered from the catalog on one side, reported on the other, logged on neither."""

import logging
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from handfast.catalog import HandfastFault
from handfast.frames import COORDINATOR, PARTICIPANT, CallFailed, CallStream, careful, channel_options, failure_of_rpc
from handfast.frames.columns import CELLS_MAX
from handfast.frames.reading import FRAME_DEPTH, MESSAGES_MAX, Unreadable, is_too_dense, reader
from handfast.masking import MASK, masked
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import participant_pb2_grpc
from handfast.v1 import types_pb2 as t
from participant.server import ParticipantServicer, servicer_of
from tests.integration.coordinator.edge import serving

GARBAGE = [b"\xff\xff\xff", b"\x0a\x05abc", b"\x0b" * 200]
NO_UTF8 = b"\x0a\x06\x12\x04\x1a\x02\xff\xfe"
MIB = 2**20


def call_with(field: int, inside: bytes) -> bytes:
    """A frame of one call whose request is in this field."""
    request = _delimited(field, inside)
    return _delimited(1, request)


def _delimited(field: int, data: bytes) -> bytes:
    length, size = b"", len(data)
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([field << 3 | 2]) + length + bytes([size]) + data


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_a_unary_call_that_can_not_be_read_is_answered_from_the_catalog(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as edge:
        for method in COORDINATOR.methods.values():
            call: Any = edge.channel.unary_unary(method.path)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(garbage)
            assert failure_of_rpc(refused.value, "it").code == "MESSAGE_MALFORMED"
        assert (await edge.unary()(c.BeginRequest())).gtrid
    assert [one for one in caplog.records if one.levelno >= logging.ERROR and one.name.startswith("handfast")] == []


@pytest.mark.parametrize("garbage", [*GARBAGE, NO_UTF8])
async def test_a_frame_that_can_not_be_read_ends_its_stream_and_no_other(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as edge:
        calm = edge.framed()
        assert (await calm(c.BeginRequest())).gtrid
        connect: Any = edge.channel.stream_stream(COORDINATOR.connect_path)
        stream = connect()
        await stream.write(garbage)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
        assert failure_of_rpc(refused.value, "it").code == "MESSAGE_MALFORMED"
        assert (await calm(c.BeginRequest())).gtrid
    assert [one for one in caplog.records if one.levelno >= logging.ERROR and one.name.startswith("handfast")] == []


async def test_a_participant_answers_the_same(caplog: pytest.LogCaptureFixture) -> None:
    server = grpc.aio.server()
    servicer_of(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in PARTICIPANT.methods.values():
            call: Any = channel.unary_unary(method.path)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"\xff")
            assert failure_of_rpc(refused.value, "it").code == "MESSAGE_MALFORMED"
    await server.stop(None)
    assert caplog.records == []


async def test_whoever_admits_calls_hears_of_each_and_of_those_that_are_refused() -> None:
    admitted, refused = list[str](), list[None]()

    async def admit(context: Any) -> Callable[[], None]:
        admitted.append(context.peer())
        return lambda: refused.append(None)

    server = grpc.aio.server()
    participant_pb2_grpc.add_ParticipantServicer_to_server(ParticipantServicer(), careful(server, admit))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        unary: Any = channel.unary_unary(PARTICIPANT.methods[p.InspectRequest].path)
        for data in (b"", b"\xff"):
            with pytest.raises(grpc.aio.AioRpcError):
                await unary(data)
        connect: Any = channel.stream_stream(PARTICIPANT.connect_path)
        stream = connect()
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert (len(admitted), len(refused)) == (3, 2)
        stream = connect()
        await stream.write(b"\xff")
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()
        assert (len(admitted), len(refused)) == (4, 3)
    await server.stop(None)


async def test_an_id_whose_call_has_no_answer_yet_can_not_be_used_again() -> None:
    async with serving() as edge:
        frame = c.CoordinatorConnectRequest()
        for _ in range(2):
            frame.calls.add(id=7).register.CopyFrom(
                c.RegisterRequest(resource="accounts", instance="one", address="127.0.0.1:9")
            )
        connect: Any = edge.channel.stream_stream(COORDINATOR.connect_path)
        stream = connect()
        await stream.write(frame.SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in stream:
                pass  # the answer to the first of them, perhaps
        assert failure_of_rpc(refused.value, "it").code == "CALL_ID_REPEATED"


@pytest.mark.parametrize(
    "dense",
    [
        b"\x0a\x00" * (MIB // 2),
        call_with(6, b"\x1a\x00" * (MIB // 2)),
        call_with(8, b"\x2a\x00" * (MIB // 2)),
        _delimited(2, b"\x2a\x00" * (MIB // 2)),
        _delimited(2, b"\x42\x00" * (MIB // 2)),
        b"\x12\x00" * (MIB // 2),
        _delimited(2, b"\x42\x00" * 4_000) * 17,
        b"\x78\x01" * (MIB // 2),
        b"\x7b\x7c" * (MIB // 2),
    ],
    ids=[
        "calls",
        "operations",
        "names of operations",
        "resources",
        "payloads",
        "columns",
        "payloads of many columns",
        "unknown fields",
        "unknown groups",
    ],
)
def test_a_frame_of_countless_tiny_messages_is_refused_before_it_is_parsed(dense: bytes) -> None:
    assert is_too_dense(dense, FRAME_DEPTH)
    unread = reader(c.CoordinatorConnectRequest)(dense)
    assert isinstance(unread, Unreadable)
    assert str(MESSAGES_MAX) in unread.problem


def test_a_frame_as_large_as_our_senders_make_them_is_read() -> None:
    frame = c.CoordinatorConnectRequest()
    for number in range(256):
        execute = c.ExecuteRequest()
        for _ in range(8):
            execute.operations.add(resource="accounts", name="work", payload=b"\x0a" * 512)
        frame.calls.add(id=number).execute.CopyFrom(execute)
    data = frame.SerializeToString()
    assert len(data) > MIB
    assert reader(c.CoordinatorConnectRequest)(data) == frame
    large = c.CoordinatorConnectRequest()
    large.calls.add(id=1).execute.operations.add(resource="accounts", name="work", payload=b"\x0a\x00" * 2 * MIB)
    assert reader(c.CoordinatorConnectRequest)(large.SerializeToString()) == large
    rows = CELLS_MAX // 8
    columns = c.ExecuteColumns(count=rows, resources=["a"] * 7, names=["b"] * 7, gtrids=["t"] * rows)
    columns.payloads[:] = [b"\x0a" * 100] * (7 * rows)
    tall = c.CoordinatorConnectRequest(executes=[columns, columns])
    assert len(tall.SerializeToString()) > MIB // 2
    assert reader(c.CoordinatorConnectRequest)(tall.SerializeToString()) == tall


@pytest.mark.parametrize("text", ["'", "x", "\n\0", "\n"], ids=["quotes", "varints", "empty fields", "fields"])
def test_a_large_text_or_payload_is_not_taken_for_messages(text: str) -> None:
    payload = (text * MIB)[:MIB]
    operation = t.Operation(resource="accounts", name="work", payload=payload.encode())
    for message in (
        c.ExecuteRequest(operations=[operation]),
        c.RollbackRequest(gtrid=payload, reason=payload),
        c.CoordinatorConnectRequest(calls=[c.CoordinatorCall(id=1, inquire=c.InquireRequest(gtrid=payload))]),
        c.CoordinatorConnectRequest(
            calls=[c.CoordinatorCall(id=1, execute=c.ExecuteRequest(operations=[operation, operation]))]
        ),
        c.CoordinatorConnectRequest(executes=[c.ExecuteColumns(gtrids=[payload], payloads=[payload.encode()] * 2)]),
        p.ParticipantConnectRequest(commits=[p.CommitColumns(gtrids=[payload], proofs=[payload])]),
    ):
        assert reader(type(message))(message.SerializeToString()) == message


class Mute:
    """A peer that answers everything with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        async def unary(request: bytes, context: Any) -> bytes:
            return answer

        async def stream(requests: Any, context: Any) -> None:
            async for _ in requests:
                await context.write(answer)

        handlers: dict[str, Any] = {
            method.name: grpc.unary_unary_rpc_method_handler(unary) for method in PARTICIPANT.methods.values()
        }
        handlers["Connect"] = grpc.stream_stream_rpc_method_handler(stream)
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(PARTICIPANT.name, handlers),))


@pytest.mark.parametrize("method", PARTICIPANT.methods, ids=lambda kind: kind.__name__)
async def test_an_answer_that_can_not_be_read_is_a_lost_one(method: Any, caplog: pytest.LogCaptureFixture) -> None:
    mute = Mute(b"\xff\xff\xff")
    port = mute.server.add_insecure_port("127.0.0.1:0")
    await mute.server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=channel_options()) as channel:
        stream = CallStream(channel, PARTICIPANT)
        with pytest.raises(CallFailed) as lost:
            await stream.ask(method(), timeout_s=10)
        await stream.close()
    await mute.server.stop(None)
    assert (lost.value.code, lost.value.maybe_executed) == ("LOST", True)
    assert [one for one in caplog.records if one.levelno >= logging.ERROR and one.name.startswith("handfast")] == []


async def test_details_of_a_status_that_can_not_be_read_leave_the_status() -> None:
    async def refuse(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "gone", (("grpc-status-details-bin", b"\xff\xff"),))
        return b""

    server = grpc.aio.server()
    handlers: dict[str, Any] = {"Inspect": grpc.unary_unary_rpc_method_handler(refuse)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(PARTICIPANT.name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await participant_pb2_grpc.ParticipantStub(channel).Inspect(p.InspectRequest())
    await server.stop(None)
    assert failure_of_rpc(refused.value, "it").code == "NOT_FOUND"


def test_an_error_is_not_as_large_as_what_it_complains_about() -> None:
    fault = HandfastFault("NAME_MALFORMED", text="x" * 10 * MIB, kind="resource name")
    assert len(str(fault)) < 2_000


@pytest.mark.parametrize("text", ["a." * MIB, "a://b:" * MIB, "a://b:c@" * (MIB // 8), "password " * MIB])
def test_masking_a_long_text_takes_no_longer_than_its_length_asks_for(text: str) -> None:
    # With the square of a million steps this line is not reached today.
    assert len(masked(text)) <= len(text) + len(MASK)


def test_what_is_masked_stays_masked() -> None:
    assert masked("at .postgres://me:pass@word@db/x and b://c:d") == f"at .postgres://me:{MASK}@db/x and b://c:d"
