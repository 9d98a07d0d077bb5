"""The serving side of frame connections: a port, and the tickets that open a connection on it.

Who may open one was settled before: a ticket is told only on a ``Connect`` stream that was admitted, it is 32 random
bytes, opens one connection, within ten seconds, and that connection belongs to that stream. So there is nothing behind
this port for anybody else: whoever comes without a ticket is cut off, and as long as no ticket is out, nobody is even
let in. Connections wait in the system's backlog then, and cost nothing.

A port that speaks plain text has a local socket beside it (``local.py``), for callers on the same machine. It is one
more way to the same door: whoever comes in there shows a ticket of the same kind, and is a stranger until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from handfast.clock import secret
from handfast.frames import local
from handfast.frames.channels import MESSAGE_BYTES_MAX
from handfast.frames.connection import GREETING_BYTES, MAGIC, TICKET_BYTES, FrameConnection
from handfast.pem_files import PemFiles

log = logging.getLogger(__name__)

TICKET_S = 10.0
"""How long a ticket is good for, in seconds."""

GREETING_S = 5.0
"""How long a connection may take to greet, its TLS handshake included, in seconds."""

STRANGERS_MAX = 32
"""How many more connections than tickets are out may be open that have not greeted; the oldest is cut off for one
more."""

STRANGER_S = 0.02
"""How long each that came to nothing holds up the next, in seconds. One costs a millisecond or two with TLS, of the
thread that serves everybody."""

BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Offer:
    """A ticket that is out.

    Args:
        where: ``host:port``, or ``:port`` for the host that was dialed.
        local: the name of the local socket where it is good too; None when there is none for this caller.
        ticket: opens the connection.
        taken: becomes the connection.
    """

    where: str
    local: str | None
    ticket: bytes
    taken: asyncio.Future[FrameConnection]

    @property
    def text(self) -> str:
        """What is told to the caller."""
        return f"{self.where} {self.ticket.hex()}"


class FramePort:
    """One listening port.

    Args:
        host: the interface to listen on.
        port: 0 takes any that is free.
        via: by the gRPC address that a caller dialed, where it finds this port; for proxies.
        tls: certificate, key and authorities of clients (who then must show a certificate); None speaks plain text.
        frame_bytes_max: the largest frame that is taken.
        near: whether to have a local socket beside it, when it speaks plain text.

    Raises:
        OSError: the port can't be had, or a file of ``tls`` can't be used.
    """

    def __init__(
        self,
        host: str,
        port: int = 0,
        *,
        via: Mapping[str, str] | None = None,
        tls: PemFiles | None = None,
        frame_bytes_max: int = MESSAGE_BYTES_MAX,
        near: bool = local.AVAILABLE,
    ) -> None:
        self._via = dict(via or {})
        self._tls = tls
        self._frame_bytes_max = frame_bytes_max
        self._context: ssl.SSLContext | None = None
        if tls is not None:
            tls.read()
            self._context = _server_context(tls)
        listening = _listening(host, port)
        self.port: int = listening.getsockname()[1]
        self.local: str | None = None
        """The name of the local socket beside it; None when there is none."""
        self._listening = [listening]
        if near and tls is None and (beside := local.listening(self.port, BACKLOG)) is not None:
            self.local = beside[0]
            self._listening.append(beside[1])
        self._offers: dict[bytes, tuple[Offer, asyncio.TimerHandle]] = {}
        self._strangers: dict[FrameConnection, tuple[asyncio.Task[None], asyncio.TimerHandle]] = {}
        self._open_on: asyncio.AbstractEventLoop | None = None
        self._held_up_until_s = 0.0
        self._held_up: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self._tls is not None

    @property
    def lets_in(self) -> bool:
        """Whether anybody is let in just now."""
        return self._open_on is not None

    @property
    def strangers(self) -> int:
        """How many connections are open that have not greeted."""
        return len(self._strangers)

    # -- tickets ---------------------------------------------------------------------------------------------------

    def offer(self, dialed: str, *, near: bool = False) -> Offer | None:
        """Make a ticket; to be given back by ``withdraw``. None when the port is closed.

        Args:
            dialed: the gRPC address that the caller dialed.
            near: whether it is on this machine, so that the local socket may be offered. It isn't to whoever dialed a
                proxy, which is there to be passed through.
        """
        if self._closed:
            return None
        loop = asyncio.get_running_loop()
        where, beside = self._via.get(dialed), None
        if where is None:
            where, beside = f":{self.port}", self.local if near else None
        offer = Offer(where, beside, secret(TICKET_BYTES), loop.create_future())
        self._offers[offer.ticket] = offer, loop.call_later(TICKET_S, self.withdraw, offer)
        if self._open_on is None:
            self._open_on = loop
            if self._held_up is None:
                self._look_out(loop)
        return offer

    def withdraw(self, offer: Offer) -> None:
        """Let a ticket open nothing any more."""
        _, timer = self._offers.pop(offer.ticket, (None, None))
        if timer is not None:
            timer.cancel()
        if not self._offers:
            self._let_nobody_in()

    def _let_nobody_in(self) -> None:
        loop, self._open_on = self._open_on, None
        if loop is not None:
            self._look_away(loop)

    def _look_out(self, loop: asyncio.AbstractEventLoop) -> None:
        for listening in self._listening:
            loop.add_reader(listening, self._on_arrival, listening)

    def _look_away(self, loop: asyncio.AbstractEventLoop) -> None:
        for listening in self._listening:
            loop.remove_reader(listening)

    def close(self) -> None:
        """Let nobody in any more. Connections that a stream has stay the stream's."""
        self._closed = True
        for offer, _ in list(self._offers.values()):
            self.withdraw(offer)
        for stranger in list(self._strangers):
            self._cut_off(stranger)
        if self._held_up is not None:
            self._held_up.cancel()
        for listening in self._listening:
            listening.close()

    # -- connections -----------------------------------------------------------------------------------------------

    def _on_arrival(self, listening: socket.socket) -> None:
        """Take one; the loop calls again for the next, and lets others have their turn before."""
        try:
            arrived, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # it has left again
        except OSError as problem:
            # Out of descriptors, for example. Whoever has a ticket does without; the next ticket tries again.
            log.warning("no frame connection could be taken: %s", problem)
            self._let_nobody_in()
            return
        if len(self._strangers) >= STRANGERS_MAX + len(self._offers):
            self._cut_off(next(iter(self._strangers)))
        connection = FrameConnection(self._greeted, GREETING_BYTES, self._frame_bytes_max, self._give_up)
        loop = asyncio.get_running_loop()
        arriving = loop.create_task(self._arrive(arrived, connection))
        self._strangers[connection] = arriving, loop.call_later(GREETING_S, self._cut_off, connection)

    async def _arrive(self, arrived: socket.socket, connection: FrameConnection) -> None:
        """Have a connection greet. What becomes of it then is ``_greeted``'s."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                arrived,
                ssl=self._current_context(),
                ssl_handshake_timeout=GREETING_S if self.secure else None,
            )
        except (OSError, asyncio.CancelledError) as problem:
            log.debug("a frame connection came to nothing: %r", problem)
            self._give_up(connection)
            arrived.close()

    def _greeted(self, connection: FrameConnection, greeting: bytes) -> bool:
        self._forget(connection)
        offer, _ = self._offers.get(greeting[len(MAGIC) :], (None, None))
        if offer is None or not greeting.startswith(MAGIC):
            log.debug("a frame connection came without a ticket")
            self._hold_up()
            return False
        self.withdraw(offer)
        connection.greet(MAGIC)
        offer.taken.set_result(connection)
        return True

    def _forget(self, stranger: FrameConnection) -> bool:
        """No longer a stranger; False when it was none."""
        _, timer = self._strangers.pop(stranger, (None, None))
        if timer is None:
            return False
        timer.cancel()
        return True

    def _cut_off(self, stranger: FrameConnection) -> None:
        arriving, _ = self._strangers[stranger]
        self._give_up(stranger)
        stranger.abort()
        # Not before it has begun, for then nobody would close the socket.
        asyncio.get_running_loop().call_soon(arriving.cancel)

    def _give_up(self, stranger: FrameConnection) -> None:
        if self._forget(stranger):
            self._hold_up()

    def _hold_up(self) -> None:
        """One came to nothing: whoever comes next waits, and so strangers take little time, however many there are."""
        loop = asyncio.get_running_loop()
        self._held_up_until_s = max(self._held_up_until_s, loop.time()) + STRANGER_S
        if self._held_up is None and not self._closed:
            self._look_away(loop)
            self._held_up = loop.call_at(self._held_up_until_s, self._go_on)

    def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        self._held_up = None
        if loop.time() < self._held_up_until_s:
            self._held_up = loop.call_at(self._held_up_until_s, self._go_on)
        elif self._open_on is not None:
            self._look_out(loop)

    def _current_context(self) -> ssl.SSLContext | None:
        if self._tls is not None and self._tls.reread() is not None:
            self._context = _server_context(self._tls)
        return self._context


def _listening(host: str, port: int) -> socket.socket:
    listening = None
    if _is_any(host) and socket.has_dualstack_ipv6():
        # As gRPC takes it: both kinds of addresses.
        with contextlib.suppress(OSError):
            listening = socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    if listening is None:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(where, family=family, backlog=BACKLOG)
    listening.setblocking(False)
    return listening


def _is_any(host: str) -> bool:
    """Whether it stands for all addresses of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _server_context(files: PemFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files.load_into(context)
    if files.authorities is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
