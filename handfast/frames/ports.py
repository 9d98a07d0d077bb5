"""The serving side of frame connections: a port, and the tickets that open a connection on it.

Who may open one was settled before: a ticket is told only on a ``Connect`` stream that was admitted, it is 32 random
bytes, opens one connection, within ten seconds, and that connection belongs to that stream. So there is nothing behind
this port for anybody else: whoever comes without a ticket is cut off, and as long as no ticket is out, nobody is even
let in. Connections wait in the system's backlog then, and cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from handfast.clock import secret
from handfast.frames.channels import MESSAGE_BYTES_MAX
from handfast.frames.connection import GREETING_BYTES, MAGIC, TICKET_BYTES, FrameConnection
from handfast.pem_files import PemFiles

log = logging.getLogger(__name__)

TICKET_S = 10.0
"""How long a ticket is good for, in seconds."""

GREETING_S = 5.0
"""How long a connection may take to greet, its TLS handshake included, in seconds."""

STRANGERS_MAX = 32
"""How many connections may be open that have not greeted; the oldest is cut off for one more."""

BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Offer:
    """A ticket that is out.

    Args:
        where: ``host:port``, or ``:port`` for the host that was dialed.
        ticket: opens the connection.
        taken: becomes the connection.
    """

    where: str
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
    ) -> None:
        self._via = dict(via or {})
        self._tls = tls
        self._frame_bytes_max = frame_bytes_max
        self._context = None if tls is None else _server_context(tls)
        self._socket = _listening(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._offers: dict[bytes, Offer] = {}
        self._strangers: dict[FrameConnection, asyncio.TimerHandle] = {}
        self._arrivals: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self._tls is not None

    # -- tickets ---------------------------------------------------------------------------------------------------

    def offer(self, dialed: str) -> Offer | None:
        """Make a ticket; to be given back by ``withdraw``. None when the port is closed.

        Args:
            dialed: the gRPC address that the caller dialed.
        """
        if self._closed:
            return None
        loop = asyncio.get_running_loop()
        offer = Offer(self._via.get(dialed, f":{self.port}"), secret(TICKET_BYTES), loop.create_future())
        self._offers[offer.ticket] = offer
        loop.call_later(TICKET_S, self.withdraw, offer)
        if self._accepting is None:
            self._accepting = loop.create_task(self._accept())
        return offer

    def withdraw(self, offer: Offer) -> None:
        """Let a ticket open nothing any more."""
        self._offers.pop(offer.ticket, None)
        if not self._offers and self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None

    def close(self) -> None:
        """Let nobody in any more. Connections that a stream has stay the stream's."""
        self._closed = True
        for offer in list(self._offers.values()):
            self.withdraw(offer)
        for task in self._arrivals:
            task.cancel()
        for stranger in list(self._strangers):
            self._cut_off(stranger)
        self._socket.close()

    # -- connections -----------------------------------------------------------------------------------------------

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                arrived, _ = await loop.sock_accept(self._socket)
            except OSError as problem:
                # Out of descriptors, for example. Whoever has a ticket does without; the next ticket tries again.
                log.warning("no frame connection could be taken: %s", problem)
                self._accepting = None
                return
            task = loop.create_task(self._arrive(arrived))
            self._arrivals.add(task)
            task.add_done_callback(self._arrivals.discard)

    async def _arrive(self, arrived: socket.socket) -> None:
        """Have a connection greet. What becomes of it then is ``_greeted``'s."""
        connection = FrameConnection(self._greeted, GREETING_BYTES, self._frame_bytes_max)
        self._take_note(connection)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                arrived,
                ssl=self._current_context(),
                ssl_handshake_timeout=GREETING_S if self.secure else None,
            )
        except (OSError, asyncio.CancelledError) as problem:
            log.debug("a frame connection came to nothing: %r", problem)
            self._forget(connection)
            arrived.close()

    def _greeted(self, connection: FrameConnection, greeting: bytes) -> bool:
        self._forget(connection)
        offer = self._offers.get(greeting[len(MAGIC) :]) if greeting.startswith(MAGIC) else None
        if offer is None or offer.taken.done():
            log.debug("a frame connection came without a ticket")
            return False
        self.withdraw(offer)
        connection.greet(MAGIC)
        offer.taken.set_result(connection)
        return True

    def _take_note(self, stranger: FrameConnection) -> None:
        if len(self._strangers) >= STRANGERS_MAX:
            self._cut_off(next(iter(self._strangers)))
        loop = asyncio.get_running_loop()
        self._strangers[stranger] = loop.call_later(GREETING_S, self._cut_off, stranger)

    def _forget(self, stranger: FrameConnection) -> None:
        timer = self._strangers.pop(stranger, None)
        if timer is not None:
            timer.cancel()

    def _cut_off(self, stranger: FrameConnection) -> None:
        self._forget(stranger)
        stranger.abort()

    def _current_context(self) -> ssl.SSLContext | None:
        if self._tls is not None and self._tls.reread() is not None:
            self._context = _server_context(self._tls)
        return self._context


def _listening(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _server_context(files: PemFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files.load_into(context)
    if files.authorities is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
