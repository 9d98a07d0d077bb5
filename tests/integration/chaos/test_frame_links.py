"""Frames in the lab travel over proxies of their own, which are hurt together with those of the calls beside them."""

import socket
from collections.abc import AsyncIterator

import pytest

from chaos.faults import Cut
from chaos.history import Status
from chaos.lab import Lab
from chaos.scenario import Scenario
from chaos.stack import Stack
from chaos.toxiproxy import Proxy

FRAMED = (("client", "coordinator"), ("coordinator", "ledger"), ("ledger", "coordinator"))
"""A link of each kind on which frames travel."""
LATE_S = 0.7
"""Far longer than a payment takes by itself."""
AGAIN_S_MAX = 45.0
"""How long after frames began to get lost a payment must succeed again: the time in which gRPC finds out, and some."""


async def nothing(lab: Lab) -> None:
    """The tests act."""


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """A lab that has paid once, so that every stream is up."""
    scenario = Scenario(
        name="a-test", teaches="It is a test.", expected="it works", why="because", act=nothing, expect=lambda run: ()
    )
    async with Stack() as stack, Lab(scenario, stack, seed=1) as lab:
        assert (await lab.pay()).status is Status.OK
        yield lab


def frames(lab: Lab, source: str, target: str) -> Proxy:
    """The proxy that the frames of a link travel over."""
    proxy = lab.wire(source, target).frames
    assert proxy is not None
    return proxy


async def paid_s(lab: Lab, late: Proxy) -> float:
    """How long a payment takes, in seconds, while what comes back through a proxy comes late."""
    late.add_toxic(type="latency", attributes={"latency": int(LATE_S * 1000)})
    call = await lab.pay()
    late.destroy_toxic("latency_downstream")
    assert call.end_s is not None
    return call.end_s - call.start_s


def lets_in(proxy: Proxy) -> bool:
    """Whether a proxy takes connections."""
    host, _, port = proxy.listen.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except ConnectionRefusedError:
        return False
    return True


async def test_every_link_but_those_to_databases_has_a_proxy_for_frames(lab: Lab) -> None:
    framed = {link for link, wire in lab.wires.items() if wire.frames is not None}
    assert framed == {link for link in lab.wires if not link[1].startswith("postgres-")}
    assert framed >= set(FRAMED)


async def test_what_is_slow_for_frames_alone_is_slow_for_payments_and_what_is_slow_beside_them_is_not(lab: Lab) -> None:
    took_s = {
        link: (await paid_s(lab, lab.wire(*link).calls), await paid_s(lab, frames(lab, *link))) for link in FRAMED
    }
    slow = {link: tuple(one_s >= LATE_S for one_s in both_s) for link, both_s in took_s.items()}
    assert slow == dict.fromkeys(FRAMED, (False, True)), took_s


async def test_a_link_that_is_cut_takes_neither_calls_nor_frames_until_it_is_healed(lab: Lab) -> None:
    wire = lab.wire("coordinator", "ledger")
    async with lab.under(Cut("coordinator", "ledger")):
        cut = [lets_in(proxy) for proxy in wire]
        refused = await lab.pay(kind="pay at once", timeout_s=1)
    assert (cut, [lets_in(proxy) for proxy in wire]) == ([False, False], [True, True])
    assert refused.status is Status.FAIL


async def test_when_frames_alone_are_lost_transactions_end_and_others_soon_commit(lab: Lab) -> None:
    link = FRAMED[0]  # it takes half a minute, and is the same for all
    frames(lab, *link).add_toxic(type="timeout", stream="upstream", attributes={"timeout": 0})
    frames(lab, *link).add_toxic(type="timeout", stream="downstream", attributes={"timeout": 0})
    lost_s = lab.events.now_s()
    call = await lab.pay(timeout_s=3)
    while call.status is not Status.OK and lab.events.now_s() < lost_s + AGAIN_S_MAX:
        call = await lab.pay(timeout_s=3)
    assert call.status is Status.OK, [f"{one.status.value} {one.error}" for one in lab.history.calls]
    await lab.blocking(lab.bank.wait_nothing_prepared)
