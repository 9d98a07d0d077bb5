"""The client of real Toxiproxy servers: several at once in one process, and no call without an end."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.stack import Stack, wait_until
from chaos.toxiproxy import ProxyError, Toxiproxy, ToxiproxyServer, Wire


@pytest.fixture
def stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that sends back what it gets. Gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve_echo, args=(server,), daemon=True).start()
        yield "{}:{}".format(*server.getsockname())


def _serve_echo(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return  # closed: the test is over
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection:
        while received := connection.recv(1024):
            connection.sendall(received)


def answer(address: str, within_s: float) -> bytes:
    """What comes back; nothing when nothing comes in time, or the connection is refused or dropped."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=within_s) as connection:
            connection.sendall(b"hello")
            return connection.recv(5)
    except (TimeoutError, ConnectionError):
        return b""


def test_two_servers_in_one_process_are_spoken_to_apart(stack: Stack, echo: str, tmp_path: Path) -> None:
    first, second = (stack.start(ToxiproxyServer(tmp_path, name=name)) for name in ("first", "second"))
    cut, whole = (server.api.create(echo, "link") for server in (first, second))
    cut.disable()
    assert (answer(cut.listen, 1), answer(whole.listen, 1)) == (b"", b"hello")
    assert [server.api.proxies()["link"].enabled for server in (first, second)] == [False, True]


def test_a_disabled_proxy_lets_traffic_through_again_at_its_old_address(
    stack: Stack, echo: str, tmp_path: Path
) -> None:
    proxy = stack.start(ToxiproxyServer(tmp_path)).api.create(echo, "link")
    address = proxy.listen
    proxy.disable()
    proxy.enable()
    assert (proxy.listen, answer(address, 1)) == (address, b"hello")


def test_a_proxy_that_leads_elsewhere_drops_its_connections_and_keeps_its_address(
    stack: Stack, echo: str, tmp_path: Path
) -> None:
    api = stack.start(ToxiproxyServer(tmp_path)).api
    first = api.create(echo, "first")
    second = api.create(first.listen, "second")
    host, _, port = second.listen.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        first.disable()
        second.lead_to(echo)
        assert connection.recv(1) == b""
    assert answer(second.listen, 1) == b"hello"


def test_a_toxic_acts_until_it_is_destroyed(stack: Stack, echo: str, tmp_path: Path) -> None:
    proxy = stack.start(ToxiproxyServer(tmp_path)).api.create(echo, "client → echo")
    proxy.add_toxic(type="timeout", name="silent", attributes={"timeout": 0})
    silent = answer(proxy.listen, 0.3)
    listed = [*proxy.toxics()]
    proxy.destroy_toxic("silent")
    assert (silent, listed, answer(proxy.listen, 1)) == (b"", ["silent"], b"hello")


def wire_to(echo: str, stack: Stack, tmp_path: Path) -> Wire:
    """A wire to the echo, for calls and for frames."""
    api = stack.start(ToxiproxyServer(tmp_path)).api
    return Wire(api.create(echo, "link"), api.create(echo, "link-frames"))


def answers(wire: Wire, within_s: float = 0.5) -> list[bytes]:
    """What comes back by each of its proxies."""
    return [answer(proxy.listen, within_s) for proxy in wire]


def test_a_cut_wire_lets_neither_calls_nor_frames_through(stack: Stack, echo: str, tmp_path: Path) -> None:
    wire = wire_to(echo, stack, tmp_path)
    wire.disable()
    cut = answers(wire)
    wire.enable()
    assert (cut, answers(wire)) == ([b"", b""], [b"hello", b"hello"])


def test_a_toxic_on_a_wire_is_felt_by_calls_and_by_frames(stack: Stack, echo: str, tmp_path: Path) -> None:
    wire = wire_to(echo, stack, tmp_path)
    wire.add_toxic(type="timeout", attributes={"timeout": 0})
    silent = answers(wire)
    wire.destroy_toxic("timeout_downstream")
    assert (silent, answers(wire)) == ([b"", b""], [b"hello", b"hello"])


def test_a_wire_leads_past_the_next_one_for_calls_and_for_frames(stack: Stack, echo: str, tmp_path: Path) -> None:
    api = stack.start(ToxiproxyServer(tmp_path)).api
    behind = Wire(api.create(echo, "behind"), api.create(echo, "behind-frames"))
    assert behind.frames is not None
    wire = Wire(api.create(behind.calls.listen, "link"), api.create(behind.frames.listen, "link-frames"))
    behind.disable()
    through = answers(wire)
    wire.lead_past(behind)
    assert (through, answers(wire)) == ([b"", b""], [b"hello", b"hello"])


def test_a_server_that_never_answers_is_given_up_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        api = Toxiproxy(deaf.getsockname()[1], timeout_s=0.2)
        with pytest.raises(ProxyError, match="ReadTimeout"):
            api.proxies()


def test_a_refusal_says_what_was_asked_and_why(stack: Stack, echo: str, tmp_path: Path) -> None:
    api = stack.start(ToxiproxyServer(tmp_path)).api
    proxy = api.create(echo, "link")
    with pytest.raises(ProxyError, match=r"POST .*/proxies: ProxyExists"):
        api.create(echo, "link")
    with pytest.raises(ProxyError, match="InvalidToxic"):
        proxy.add_toxic(type="no-such-toxic")


def test_the_environments_http_proxy_is_not_used(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = stack.start(ToxiproxyServer(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert server.api.running()


def test_closing_ends_the_server(tmp_path: Path) -> None:
    with Stack() as stack:
        api = stack.start(ToxiproxyServer(tmp_path)).api
        assert api.running()
    wait_until(lambda: not api.running(), 5, "the server still answers")
    assert not api.running()
