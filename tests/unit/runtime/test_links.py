"""Which process a message goes to."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import pytest

from coordinator.runtime.directory import Directory
from coordinator.runtime.links import Links, _Link
from handfast.frames import CallFailed, OnReply
from handfast.v1 import participant_pb2 as p
from tests.unit.runtime.scripted import participant

UP, AWAY = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE


class FakeLink:
    """Stands for a channel and for the stream on it: notes what is sent."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.state = UP
        self.sent = 0

    @property
    def connected(self) -> bool:
        return self.state is UP

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.state

    def call(self, request: object, on_reply: OnReply, *, timeout_s: float | None = None) -> None:
        self.sent += 1

    async def close(self, grace: float | None = None) -> None:
        self.state = grpc.ChannelConnectivity.SHUTDOWN


class FakedLinks(Links):
    """Links without gRPC."""

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory, on_up=lambda address: None)
        self.made: list[FakeLink] = []

    def _make_link(self, address: str, resource: str) -> _Link:
        fake = FakeLink(address)
        self.made.append(fake)
        return _Link(cast(Any, fake), cast(Any, fake), asyncio.ensure_future(asyncio.sleep(0)))

    def goes_to(self, bqual: str, *, attempt: int = 1, any_instance: bool = False) -> str:
        """The address to which a message goes; empty when there is nobody."""
        before = [fake.sent for fake in self.made]
        replies: list[object] = []
        self.send(bqual, p.PrepareRequest(), replies.append, attempt=attempt, any_instance=any_instance, timeout_s=1.0)
        grown = [fake.address for fake, sent in zip(self.made, [*before, 0, 0], strict=False) if fake.sent > sent]
        return "".join(grown)

    def at(self, address: str) -> FakeLink:
        return next(fake for fake in reversed(self.made) if fake.address == address)


@pytest.fixture
def directory() -> Directory:
    return Directory([participant("shop.a", "host:1"), participant("shop.b", "host:2")])


@pytest.fixture
async def links(directory: Directory) -> FakedLinks:
    links = FakedLinks(directory)
    links.connect()
    return links


async def test_phase_one_goes_to_the_process_that_holds_the_branch_and_to_no_other(links: FakedLinks) -> None:
    assert [links.goes_to(bqual) for bqual in ("shop.a", "shop.b", "shop.a")] == ["host:1", "host:2", "host:1"]
    links.at("host:1").state = AWAY
    assert links.goes_to("shop.a") == "host:1"


async def test_a_branch_that_nobody_holds_fails_without_having_been_sent(links: FakedLinks) -> None:
    replies: list[object] = []
    links.send("shop.c", p.PrepareRequest(), replies.append, attempt=1, any_instance=False, timeout_s=1.0)
    assert replies == []  # never from within send
    await asyncio.sleep(0)
    (failure,) = replies
    assert isinstance(failure, CallFailed)
    assert (failure.code, failure.maybe_executed) == ("RESOURCE_UNKNOWN", False)


async def test_phase_two_goes_to_the_holder_first_and_then_to_the_others_in_turn(links: FakedLinks) -> None:
    attempts = [links.goes_to("shop.b", attempt=attempt, any_instance=True) for attempt in (1, 2, 3)]
    assert attempts == ["host:2", "host:1", "host:2"]


async def test_phase_two_goes_elsewhere_while_the_holder_is_away(links: FakedLinks) -> None:
    links.at("host:2").state = AWAY
    assert links.goes_to("shop.b", any_instance=True) == "host:1"
    links.at("host:2").state = UP
    assert links.goes_to("shop.b", any_instance=True) == "host:2"


async def test_phase_two_goes_to_the_holder_when_everybody_is_away(links: FakedLinks) -> None:
    links.at("host:1").state = links.at("host:2").state = AWAY
    assert links.goes_to("shop.b", any_instance=True) == "host:2"


async def test_a_process_that_was_replaced_is_sent_nothing_more(links: FakedLinks, directory: Directory) -> None:
    assert links.goes_to("shop.a") == "host:1"
    directory.add(participant("shop.new", "host:1"))
    assert links.goes_to("shop.a") == ""
    assert links.goes_to("shop.a", any_instance=True) in ("host:1", "host:2")


async def test_a_process_that_moved_is_found_where_it_is(links: FakedLinks, directory: Directory) -> None:
    assert links.goes_to("shop.a") == "host:1"
    directory.add(participant("shop.a", "host:3"))
    links.connect()
    assert links.goes_to("shop.a") == "host:3"


async def test_a_connection_that_is_made_anew_is_the_one_that_is_used(links: FakedLinks, directory: Directory) -> None:
    assert links.goes_to("shop.a") == "host:1"
    old = links.at("host:1")
    old.state = AWAY
    links.connect_now(participant("shop.a", "host:1"))
    assert links.goes_to("shop.a") == "host:1"
    assert (links.at("host:1") is not old, old.sent) == (True, 1)
