"""The local socket beside a frame port: to whom it is offered, who uses it, and that TCP does when it can't be had."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handfast.frames import COORDINATOR, FramePort, carried, local, ports
from handfast.frames.connection import TICKET_BYTES, FrameConnection
from handfast.frames.dialing import HEADER, LOCAL_HEADER, FrameDialer
from handfast.frames.reading import Readable, reader
from handfast.v1 import coordinator_pb2 as c
from tests.certificates import Pki
from tests.frame_sockets import local_name, over_local, over_tcp
from tests.unit.handfast.frame_callers import ADDRESS, HOST, LOCAL, LOOPS, TCP, WAIT_S, WAYS, Caller, offered, on, taken
from tests.waiting import eventually

NEAR = "ipv4:127.0.0.1:40000"
FAR = "ipv4:192.0.2.1:40000"


class Context:
    """A plain stream from this peer, for as much as ``carried`` needs of it."""

    def __init__(self, peer: str, dialed: str = ADDRESS) -> None:
        self._peer = peer
        self._dialed = dialed
        self.told: dict[str, str] = {}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """As from a caller that asks for a frame port."""
        return ((HEADER, self._dialed),)

    def auth_context(self) -> dict[str, Any]:
        """Plain text."""
        return {}

    def peer(self) -> str:
        """See grpc.aio."""
        return self._peer

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Note the offer."""
        self.told = dict(metadata)


class Stream:
    """A stream whose server answers this."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self._metadata = metadata

    async def initial_metadata(self) -> Any:
        """See grpc.aio."""
        return self._metadata


async def told(port: FramePort, peer: str = NEAR, dialed: str = ADDRESS) -> dict[str, str]:
    """What a caller is told by a server with this port."""
    context = Context(peer, dialed)

    async def nothing() -> Any:
        return
        yield

    frames = Readable(nothing(), reader(c.CoordinatorConnectRequest))
    async with carried(COORDINATOR, port, frames, context):  # type: ignore[arg-type] # what carried needs of one
        pass
    return context.told


async def ways(port: FramePort, connection: FrameConnection) -> list[str]:
    """Over which ways somebody is connected; the connection is closed then."""
    found = [TCP] * len(over_tcp(port.port)) + [LOCAL] * len(over_local(port.port))
    connection.abort()
    return found


async def dialed(port: FramePort, name: str | None, dialer: FrameDialer | None = None) -> list[str]:
    """Over which ways a dialer came that was offered a ticket, and a local socket of this name."""
    dialer, offer = dialer or FrameDialer(ADDRESS), offered(port)
    named = () if name is None else ((LOCAL_HEADER, name),)
    connection = await dialer.open(Stream((HEADER, offer.text), *named))
    assert connection is not None
    mine = await taken(offer)
    found = await ways(port, connection)
    mine.abort()
    assert dialer.question, "nothing was given up"
    return found


# -- to whom it is offered -----------------------------------------------------------------------------------------


async def test_a_caller_on_this_machine_is_told_the_name_beside_what_others_are_told() -> None:
    with contextlib.closing(FramePort(HOST)) as port:
        answer = await told(port)
        assert answer[HEADER].startswith(f":{port.port} ")
        assert answer[LOCAL_HEADER] == port.local == local_name(port.port)


async def test_a_caller_from_elsewhere_is_not_told() -> None:
    with contextlib.closing(FramePort(HOST)) as port:
        assert set(await told(port, FAR)) == {HEADER}


async def test_who_dialed_a_proxy_is_not_told_for_it_would_go_past_it() -> None:
    with contextlib.closing(FramePort(HOST, via={ADDRESS: f"{HOST}:9"})) as port:
        assert set(await told(port)) == {HEADER}
        assert LOCAL_HEADER in await told(port, dialed=f"{HOST}:7401")


async def test_a_port_with_tls_has_none(tmp_path: Path) -> None:
    with contextlib.closing(FramePort(HOST, tls=Pki(tmp_path).coordinator().server().files())) as port:
        assert port.local is None
        assert local_name(port.port) is None


async def test_on_a_system_without_such_names_there_is_none() -> None:
    with contextlib.closing(FramePort(HOST, near=False)) as port:
        assert port.local is None
        assert set(await told(port)) == {HEADER}


def test_where_the_system_refuses_one_it_is_said_and_there_is_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    caplog.set_level("INFO")
    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert local.listening(7411, 8) is None
    assert "no local socket beside frame port 7411" in caplog.text
    assert "Operation not permitted" in caplog.text


@pytest.mark.parametrize(
    ("peer", "near"),
    [
        (NEAR, True),
        ("ipv4:127.9.9.9:1", True),
        ("ipv6:%5B::1%5D:40000", True),
        ("ipv6:[::1]:40000", True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:40000", True),
        ("unix:", True),
        ("unix:/run/proxy.sock", True),
        (FAR, False),
        ("ipv6:%5B2001:db8::1%5D:40000", False),
        ("ipv6:%5B::ffff:192.0.2.1%5D:40000", False),
        ("ipv6:%5Bfe80::1%25eth0%5D:40000", False),
        ("ipv4:0.0.0.0:1", False),
        ("vsock:127.0.0.1:1", False),
        ("ipv4:localhost:1", False),
        ("127.0.0.1:40000", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_near_is_who_comes_from_loopback_or_a_unix_socket(peer: str, near: bool) -> None:
    assert local.is_near(peer) is near


def test_no_two_have_the_same_name() -> None:
    both = [local.listening(65_535, 1) for _ in range(2)]
    names = {beside[0] for beside in both if beside is not None}
    for beside in both:
        assert beside is not None
        beside[1].close()
    assert len(names) == 2


# -- who uses it ---------------------------------------------------------------------------------------------------


@LOOPS
def test_who_is_told_the_name_comes_that_way(loop: Any) -> None:
    async def scenario(port: FramePort) -> None:
        assert await dialed(port, port.local) == [LOCAL]

    on(loop, scenario)


async def test_which_way_it_went_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "handfast.frames.dialing")
    with contextlib.closing(FramePort(HOST)) as port:
        await dialed(port, port.local)
        assert f"frames to {ADDRESS} travel over a local socket" in caplog.text
        await dialed(port, None)
        assert f"frames to {ADDRESS} travel over TCP" in caplog.text


async def test_on_a_system_without_such_names_nobody_looks_for_it() -> None:
    with contextlib.closing(FramePort(HOST)) as port:
        assert await dialed(port, port.local, FrameDialer(ADDRESS, near=False)) == [TCP]


async def test_who_speaks_tls_never_uses_it(tmp_path: Path) -> None:
    """As behind a proxy on this machine that ends TLS: the server sees a plain stream from loopback."""
    dialer = FrameDialer(ADDRESS, Pki(tmp_path).client("billing").client().files())
    with contextlib.closing(FramePort(HOST)) as port:
        offer = offered(port)
        assert await dialer.open(Stream((HEADER, offer.text), (LOCAL_HEADER, str(port.local)))) is None
        assert not offer.taken.done()


async def test_a_ticket_that_is_refused_there_is_shown_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    dialer = FrameDialer(ADDRESS)
    with contextlib.closing(FramePort(HOST)) as port:
        offered(port)
        unknown = f":1 {os.urandom(TICKET_BYTES).hex()}"
        assert await dialer.open(Stream((HEADER, unknown), (LOCAL_HEADER, str(port.local)))) is None
        assert not dialer.question
        assert "it was refused" in caplog.text


@LOOPS
def test_whoever_gives_up_while_it_waits_there_leaves_no_connection(loop: Any) -> None:
    async def scenario(port: FramePort) -> None:
        assert port.local is not None
        text = f":{port.port} {os.urandom(TICKET_BYTES).hex()}"
        dialing = asyncio.ensure_future(FrameDialer(ADDRESS).open(Stream((HEADER, text), (LOCAL_HEADER, port.local))))
        for _ in range(10):
            await asyncio.sleep(0)  # it is in the backlog now, as nobody is let in
        dialing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialing

    on(loop, scenario)


@LOOPS
@pytest.mark.parametrize("turns", range(4))
def test_whoever_gives_up_while_it_connects_leaves_no_connection(loop: Any, turns: int) -> None:
    async def scenario(port: FramePort) -> None:
        assert port.local is not None
        offer = offered(port)
        answer = Stream((HEADER, offer.text), (LOCAL_HEADER, port.local))
        dialing = asyncio.ensure_future(FrameDialer(ADDRESS).open(answer))
        for _ in range(turns):
            await asyncio.sleep(0)
        dialing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialing
        if offer.taken.done():
            offer.taken.result().abort()

    on(loop, scenario)


# -- when it can't be had ------------------------------------------------------------------------------------------


@LOOPS
def test_where_nobody_of_that_name_is_the_same_ticket_opens_a_connection_over_tcp(loop: Any) -> None:
    """As in another network namespace, to which only the port is let through."""

    async def scenario(port: FramePort) -> None:
        assert await dialed(port, f"handfast-{port.port}-{'0' * 32}") == [TCP]

    on(loop, scenario)


@LOOPS
def test_where_too_many_wait_already_nobody_waits_behind_them(loop: Any) -> None:
    async def scenario(port: FramePort) -> None:
        beside = local.listening(port.port, 0)
        assert beside is not None
        name, full = beside
        with full, local.connected(name):
            with pytest.raises(BlockingIOError):
                local.connected(name)
            offer = offered(port)
            connection = await FrameDialer(ADDRESS).open(Stream((HEADER, offer.text), (LOCAL_HEADER, name)))
            assert connection is not None
            assert len(over_tcp(port.port)) == 1
            (await taken(offer)).abort()
            connection.abort()

    on(loop, scenario)


async def test_when_the_port_can_not_be_had_either_frames_are_left_to_grpc_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    dialer, nobody = FrameDialer(ADDRESS), (LOCAL_HEADER, f"handfast-1-{'0' * 32}")
    assert await dialer.open(Stream((HEADER, f":1 {'0a' * TICKET_BYTES}"), nobody)) is None
    assert not dialer.question
    assert caplog.text.count("so frames travel over gRPC") == 1


# -- names from outside --------------------------------------------------------------------------------------------

HEX = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    "name",
    [
        "",
        "none",
        "/run/handfast.sock",
        "handfast",
        f"handfast-{HEX}",
        f"handfast-7411-{HEX[:-1]}",
        f"handfast-7411-{HEX}0",
        f"handfast-7411-{HEX.upper()}",
        f"handfast-741100-{HEX}",
        f"handfast--{HEX}",
        f"handfast-٧-{HEX}",
        f"handfast-7411-{HEX}\n",
        f"\0handfast-7411-{HEX}",
        f"x/handfast-7411-{HEX}",
        "x" * 10_000,
    ],
)
async def test_what_is_no_name_is_not_looked_for_and_tcp_does(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        local.connected(name)
    with contextlib.closing(FramePort(HOST)) as port:
        assert await dialed(port, name) == [TCP]


@pytest.fixture
def others() -> Iterator[tuple[str, socket.socket]]:
    """A Unix socket of some other program, and its abstract name."""
    name = f"other-{os.urandom(16).hex()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        listening.setblocking(False)
        yield name, listening


async def test_nobody_is_led_to_the_socket_of_another_program(others: tuple[str, socket.socket]) -> None:
    name, listening = others
    with contextlib.closing(FramePort(HOST)) as port:
        assert await dialed(port, name) == [TCP]
    with pytest.raises(BlockingIOError):
        listening.accept()


# -- strangers -----------------------------------------------------------------------------------------------------


@LOOPS
@WAYS
def test_a_stranger_on_one_way_holds_up_both(loop: Any, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "STRANGER_S", 3600.0)

    async def scenario(port: FramePort) -> None:
        offered(port)
        assert await (await (await Caller.to(port, way=way)).says(bytes(100))).is_cut_off()
        late = [await Caller.to(port, way=one) for one in (TCP, LOCAL)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert port.strangers == 0
        for one in late:
            one.leave()

    on(loop, scenario)


@LOOPS
def test_strangers_of_both_ways_count_together(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "GREETING_S", 60.0)

    async def scenario(port: FramePort) -> None:
        offered(port)
        most = ports.STRANGERS_MAX + 1  # one ticket is out
        first = [await Caller.to(port, way=LOCAL) for _ in range(2)]
        await eventually(lambda: port.strangers == 2)
        others = [await Caller.to(port) for _ in range(most)]
        assert [await one.is_cut_off() for one in first] == [True, True]
        await eventually(lambda: port.strangers == most)
        for one in others:
            one.leave()

    on(loop, scenario)


# -- whose it is ---------------------------------------------------------------------------------------------------


@LOOPS
def test_a_closed_port_leaves_no_name(loop: Any) -> None:
    async def scenario(port: FramePort) -> None:
        offered(port)
        assert local_name(port.port) is not None
        port.close()
        await eventually(lambda: local_name(port.port) is None, within_s=WAIT_S)

    on(loop, scenario)
