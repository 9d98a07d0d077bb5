"""Client interceptors: all four kinds of call carry the ambient transaction, and nothing else changes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

import handfast
from handfast import clock, context
from handfast.context import TransactionContext
from handfast.interceptors import carry

GTRID = "k3v9q2xw-1-0m9xk2f1c-2s"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Service:
    """Four methods, one of each kind, that note the metadata and the time they are given."""

    def __init__(self) -> None:
        self.metadata: dict[str, str | bytes] = {}
        self.time_left_s: float | None = None
        self.joined = ""

    def handlers(self) -> dict[str, Any]:
        """The methods, each named for its kind."""
        return {
            kind: getattr(grpc, f"{kind}_rpc_method_handler")(self._many if kind.endswith("stream") else self._one)
            for kind in KINDS
        }

    def _note(self, call: Any) -> None:
        self.metadata = dict(call.invocation_metadata())
        self.time_left_s = call.time_remaining()
        if self.joined:
            call.set_trailing_metadata((("handfast-branches", self.joined),))

    async def _one(self, request: Any, call: Any) -> bytes:
        self._note(call)
        return b"answer"

    async def _many(self, request: Any, call: Any) -> AsyncIterator[bytes]:
        self._note(call)
        yield b"answer"


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Service, grpc.aio.Channel]]:
    service = Service()
    server = grpc.aio.server(handlers=[grpc.method_handlers_generic_handler("test.Service", service.handlers())])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    interceptors = handfast.client_interceptors()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", interceptors=interceptors) as channel:
        yield service, channel
    await server.stop(None)


async def call(channel: grpc.aio.Channel, kind: str, **details: Any) -> list[bytes]:
    """Make a call of that kind and return its responses."""
    method: Any = getattr(channel, kind)(f"/test.Service/{kind}")
    under_way = method(iter([b"request"]) if kind.startswith("stream") else b"request", **details)
    if kind.endswith("stream"):
        return [response async for response in under_way]
    return [await under_way]


def ending_in(seconds: float) -> TransactionContext:
    return TransactionContext(GTRID, clock.monotonic_s() + seconds)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_inside_a_transaction_carries_it(kind: str) -> None:
    async with served() as (service, channel):
        with context.within(ending_in(60)):
            assert await call(channel, kind) == [b"answer"]
        joined = context.from_metadata(service.metadata.items())
        assert joined is not None
        assert joined.gtrid == GTRID
        assert 50 < joined.time_left_s() <= 60


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_outside_any_transaction_is_left_alone(kind: str) -> None:
    async with served() as (service, channel):
        assert await call(channel, kind) == [b"answer"]
        assert not any(key.startswith("handfast") for key in service.metadata)
        assert service.time_left_s is None or service.time_left_s > 1e6


@pytest.mark.parametrize("kind", KINDS)
async def test_the_applications_own_metadata_stays(kind: str) -> None:
    async with served() as (service, channel):
        with context.within(ending_in(60)):
            await call(channel, kind, metadata=(("user-key", "kept"),))
        assert service.metadata["user-key"] == "kept"
        assert service.metadata["handfast-gtrid"] == GTRID


async def test_a_transaction_that_the_application_names_itself_wins() -> None:
    async with served() as (service, channel):
        with context.within(ending_in(60)):
            await call(channel, "unary_unary", metadata=(("handfast-gtrid", GTRID + "x"),))
        assert service.metadata["handfast-gtrid"] == GTRID + "x"


@pytest.mark.parametrize(
    ("left_s", "timeout_s", "given_s"), [(20, None, 20), (20, 60, 20), (60, 20, 20)], ids=["none", "longer", "nearer"]
)
async def test_a_call_gets_no_more_time_than_the_transaction_has(
    left_s: float, timeout_s: float | None, given_s: float
) -> None:
    async with served() as (service, channel):
        with context.within(ending_in(left_s)):
            await call(channel, "unary_unary", timeout=timeout_s)
        assert service.time_left_s == pytest.approx(given_s, abs=5)


def test_a_call_after_the_deadline_gets_no_time_at_all() -> None:
    with context.within(ending_in(-1)):
        details: Any = carry(grpc.aio.ClientCallDetails("/test.Service/unary_unary", 60, None, None, None))
    assert details.timeout == 0


async def test_a_transaction_without_a_deadline_sets_no_timeout() -> None:
    async with served() as (service, channel):
        with context.within(TransactionContext(GTRID, float("inf"))):
            await call(channel, "unary_unary")
        assert service.time_left_s is None or service.time_left_s > 1e6


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
async def test_a_transaction_learns_from_answers_which_branches_joined_it(kind: str) -> None:
    transaction = ending_in(60)
    async with served() as (service, channel):
        with context.within(transaction):
            for joined in ("accounts.a1", "", "ledger.b1,accounts.a1"):
                service.joined = joined
                await call(channel, kind)
    assert transaction.branches == {"accounts.a1", "ledger.b1"}


async def test_what_an_answer_tells_of_another_transaction_is_not_learned() -> None:
    transaction = ending_in(60)
    async with served() as (service, channel):
        service.joined = "accounts.a1"
        with context.within(transaction):
            await call(channel, "unary_unary", metadata=(("handfast-gtrid", GTRID + "x"),))
    assert transaction.branches == set()
