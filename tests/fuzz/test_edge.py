"""The real edge: a coordinator in this process, with raw bytes down every method, and hostile metadata."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from hypothesis import given
from hypothesis import strategies as st

from handfast.catalog import ENTRIES
from handfast.frames import failure_of_rpc
from handfast.v1 import admin_pb2, coordinator_pb2
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t
from tests.fuzz.frame_strategies import FRAMES, coordinator_calls
from tests.fuzz.loudness import quiet
from tests.fuzz.profile import bounded
from tests.fuzz.test_frames import mangled
from tests.integration.coordinator.edge import Edge, serving

ASK_S = 20.0
READ_S = 0.2
NEVER = {"INTERNAL", "UNKNOWN"}
SERVICES: tuple[ServiceDescriptor, ...] = (
    coordinator_pb2.DESCRIPTOR.services_by_name["Coordinator"],
    admin_pb2.DESCRIPTOR.services_by_name["Admin"],
)
UNARY = [
    f"/{service.full_name}/{method.name}"
    for service in SERVICES
    for method in service.methods
    if not method.server_streaming
]
STREAMED = [
    "/handfast.v1.Coordinator/Connect",
    "/handfast.v1.Admin/WatchTransactions",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
EXECUTE = "/handfast.v1.Coordinator/Execute"
NO_MESSAGE = (b"\xff\xff\xff", b"\x0a\x05abc", b"\x0b" * 200)


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    # What waits for its transaction is told when that has expired.
    async with serving(default_timeout_s=0.2, timeout_max_s=0.2, apply_wait_s=0.1) as edge:
        yield edge


async def still_answers(edge: Edge) -> None:
    """It still does."""
    assert (await edge.unary()(c.BeginRequest())).gtrid


async def unary_refusal(edge: Edge, path: str, data: bytes, metadata: Any = ()) -> str:
    """Make a unary call of these bytes; returns the code of the refusal, empty when there was none."""
    call: Any = edge.channel.unary_unary(path)
    try:
        await call(data, timeout=ASK_S, metadata=metadata)
    except grpc.aio.AioRpcError as problem:
        return failure_of_rpc(problem, "the coordinator").code
    return ""


async def test_every_unary_method_answers_any_bytes_from_the_catalog(edge: Edge) -> None:
    drawn = examples(st.one_of(st.binary(max_size=40), coordinator_calls.map(_request_bytes)), 40)
    with quiet():
        for path in UNARY:
            for data in (*NO_MESSAGE, *drawn[: 40 if "Coordinator" in path else 6]):
                code = await unary_refusal(edge, path, data)
                if code:
                    _check_refusal(code)
        await still_answers(edge)


@pytest.mark.parametrize("path", STREAMED)
async def test_every_streamed_method_answers_bytes_that_are_no_message(edge: Edge, path: str) -> None:
    with quiet():
        for data in NO_MESSAGE:
            call: Any = edge.channel.stream_stream(path)
            stream = call()
            await stream.write(data)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await asyncio.wait_for(stream.read(), ASK_S)
            assert failure_of_rpc(refused.value, "it").code == "MESSAGE_MALFORMED"
        await still_answers(edge)


async def test_frames_of_any_kind_down_real_streams_leave_a_coordinator_that_answers(edge: Edge) -> None:
    frames = examples(FRAMES[0].flatmap(lambda frame: mangled(frame.SerializeToString())), 40)
    with quiet():
        await asyncio.gather(*(_send(edge, data) for data in frames))
        await still_answers(edge)
    assert not any(running.broken for running in edge.server.requests.driver.transactions.values())


async def _send(edge: Edge, data: bytes) -> None:
    """One stream with one frame, whose answers are read for a moment."""
    call: Any = edge.channel.stream_stream("/handfast.v1.Coordinator/Connect", None, None)
    stream = call()
    try:
        await stream.write(data)
        while (answer := await asyncio.wait_for(stream.read(), READ_S)) is not grpc.aio.EOF:
            for reply in c.CoordinatorConnectResponse.FromString(answer).replies:
                if reply.HasField("error"):
                    _check_refusal(reply.error.code)
    except TimeoutError:
        pass  # a Commit that waits for its transaction, or a frame without calls
    except grpc.aio.AioRpcError as problem:
        _check_refusal(failure_of_rpc(problem, "it").code)
    stream.cancel()


def _check_refusal(code: str) -> None:
    assert code in ENTRIES
    assert code not in NEVER


METADATA = st.lists(
    st.tuples(
        st.sampled_from(["handfast-gtrid", "handfast-timeout-ms", "authorization", "grpc-timeout-x", "x-bin", "x"]),
        st.one_of(
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
            st.sampled_from(["Bearer ", "Bearer " + "x" * 2_000, "-1", "9" * 400, "1e9", "'; --"]),
        ),
    ),
    max_size=4,
)


async def test_hostile_metadata_changes_nothing(edge: Edge) -> None:
    with quiet():
        for pairs in examples(METADATA, 30):
            metadata = [(key, value.encode() if key.endswith("-bin") else value) for key, value in pairs]
            code = await unary_refusal(edge, "/handfast.v1.Coordinator/Begin", b"", metadata)
            if code:
                _check_refusal(code)
        await still_answers(edge)


async def test_what_is_told_of_a_name_of_every_sort_fits_into_a_status(edge: Edge) -> None:
    """A status travels in headers, of 8 KiB: names of four-byte letters are three times as long there."""
    names = ["\U0001f0a1" * 3_000, "%" * 10_000, "\n" * 10_000, "'" * 100_000, "\x7f" * 5_000]
    with quiet():
        for name in names:
            for request in (c.InquireRequest(gtrid=name), c.EnlistRequest(gtrid="x", resource=name)):
                path = f"/handfast.v1.Coordinator/{type(request).__name__.removesuffix('Request')}"
                code = await unary_refusal(edge, path, request.SerializeToString())
                assert code in {"GTRID_MALFORMED", "NAME_MALFORMED"}
            execute = c.ExecuteRequest(operations=[t.Operation(resource="nobody", name=name)])
            assert await unary_refusal(edge, EXECUTE, execute.SerializeToString()) == "RESOURCE_UNKNOWN"


def examples(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """So many examples for one server, the same each time: to start one for each would take too long."""
    found: list[Any] = []

    @bounded(count)
    @given(strategy)
    def draw(example: Any) -> None:
        found.append(example)

    draw()
    return found


def _request_bytes(call: c.CoordinatorCall) -> bytes:
    field = call.WhichOneof("request")
    return b"" if field is None else bytes(getattr(call, field).SerializeToString())
