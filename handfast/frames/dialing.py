"""The calling side of frame connections: asking for a ticket, and using it."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Iterable
from typing import Any

from handfast.clock import monotonic_s
from handfast.frames import local
from handfast.frames.connection import MAGIC, TICKET_BYTES, FrameConnection
from handfast.pem_files import PemFiles

HEADER = "handfast-frame-port"
"""In a stream's metadata: the address that was dialed. In the answer's: where the frame port is, and the ticket."""

LOCAL_HEADER = "handfast-frame-local"
"""Beside it in the answer's: the name of the local socket where the ticket is good too (``local.py``)."""

NONE = "none"
"""The answer of a server that has no frame port for this caller."""

OFFER_S = 1.0
"""How long to wait for the answer, in seconds. Ours comes at once; whoever knows of no frame ports answers with its
first reply, for which it needs a call."""

DIAL_S = 2.0
"""How long a frame connection may take to be there, in seconds."""

PORT_MAX = 65_535

AGAIN_S = 60.0
"""How long after a failure no other attempt is made, in seconds: one that is swallowed costs ``DIAL_S``."""

AGAIN_UNANSWERED_S = 120.0
"""The same after no answer: most likely the server knows of no frame ports, but it may only have been busy."""

log = logging.getLogger(__name__)


class FrameDialer:
    """How to get to one server's frame port.

    Args:
        address: the server's gRPC address, ``host:port``.
        tls: the caller's certificate, key and authorities, when gRPC speaks TLS to it; None speaks plain text.
        server_name: the name that the server's certificate must hold, when it is not the address's.
        near: whether to use its local socket, when one is offered and ``tls`` is None.
    """

    def __init__(
        self,
        address: str,
        tls: PemFiles | None = None,
        server_name: str | None = None,
        *,
        near: bool = local.AVAILABLE,
    ) -> None:
        self._address = address
        self._host = address.rpartition(":")[0].strip("[]")
        self._tls = tls
        self._server_name = server_name
        self._near = near and tls is None
        self._told = ""
        self._not_before_s = -math.inf

    @property
    def question(self) -> tuple[tuple[str, str], ...]:
        """What goes along with a stream; nothing when there is no hope of a connection."""
        return ((HEADER, self._address),) if self._hopeful else ()

    @property
    def _hopeful(self) -> bool:
        return monotonic_s() >= self._not_before_s

    async def open(self, stream: Any) -> FrameConnection | None:
        """A frame connection for a stream that was opened with ``question``; None when its frames go over itself.

        Args:
            stream: the ``grpc.aio`` call.
        """
        if not self._hopeful:
            return None
        try:
            async with asyncio.timeout(OFFER_S):
                told = await stream.initial_metadata()
        except TimeoutError:
            self.give_up("it was not offered in time", AGAIN_UNANSWERED_S)
            return None
        offer = _value(told, HEADER)
        if offer is None or offer == NONE:
            return None
        return await self._dial(offer, _value(told, LOCAL_HEADER) if self._near else None)

    async def _dial(self, offer: str, name: str | None) -> FrameConnection | None:
        greeted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def on_greeting(_: FrameConnection, greeting: bytes) -> bool:
            if not greeted.done():
                greeted.set_result(greeting == MAGIC)
            return greeting == MAGIC

        def on_end(_: FrameConnection) -> None:
            if not greeted.done():
                greeted.set_result(False)
            elif connection.failed:
                # Somebody on the way may let the greeting through, and nothing else.
                self.give_up("it broke before anything came back")

        connection = FrameConnection(on_greeting, len(MAGIC), on_end=on_end)
        try:
            host, port, ticket = self._read(offer)
            async with asyncio.timeout(DIAL_S):
                way = await self._connect(connection, host, port, name)
                connection.greet(MAGIC + ticket)
                if await greeted:
                    self._told = ""
                    connection.keep_asking()
                    log.debug("frames to %s travel over %s", self._address, way)
                    return connection
            problem = "it was refused"
        except (OSError, ValueError) as failure:  # TimeoutError is an OSError, and ssl.SSLError
            problem = str(failure) or type(failure).__name__
        except asyncio.CancelledError:
            connection.abort()
            raise
        connection.abort()
        self.give_up(problem)
        return None

    async def _connect(self, connection: FrameConnection, host: str, port: int, name: str | None) -> str:
        """Connect: by the local socket of this name, or else to the port. The ticket is shown only on what stands.

        Returns:
            Over what.

        Raises:
            OSError: there is no way.
        """
        loop = asyncio.get_running_loop()
        if name is not None:
            try:
                near = local.connected(name)
            except (OSError, ValueError) as problem:
                log.debug("no local socket of %s can be had, so the port is dialed: %s", self._address, problem)
            else:
                await loop.create_unix_connection(lambda: connection, sock=near)
                return "a local socket"
        await loop.create_connection(
            lambda: connection, host, port, ssl=self._context(), server_hostname=self._certified_name
        )
        return "TCP" if self._tls is None else "TLS"

    def _read(self, offer: str) -> tuple[str, int, bytes]:
        """Host, port and ticket.

        Raises:
            ValueError: it is no offer.
        """
        where, _, ticket = offer.partition(" ")
        host, _, port = where.rpartition(":")
        key, number = bytes.fromhex(ticket), int(port)
        if len(key) != TICKET_BYTES or not 0 < number <= PORT_MAX:
            raise ValueError(f"{where} is no offer of a frame port")
        return host.strip("[]") or self._host, number, key

    def _context(self) -> ssl.SSLContext | None:
        """Made anew for each connection, from what the files hold by then.

        Raises:
            OSError: they can't be used.
        """
        if self._tls is None:
            return None
        context = ssl.create_default_context()
        if self._tls.authorities is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.load_into(context)
        return context

    @property
    def _certified_name(self) -> str | None:
        """What the certificate must hold: what gRPC looks for in it, wherever the port is said to be."""
        return None if self._tls is None else self._server_name or self._host

    def give_up(self, problem: str, again_s: float = AGAIN_S) -> None:
        """Make no other attempt for a while.

        Says once why, and again when it is another cause: it costs time, and nothing else shows it.

        Args:
            problem: why.
            again_s: for how long, in seconds.
        """
        self._not_before_s = monotonic_s() + again_s
        if problem != self._told:
            self._told = problem
            log.info("no frame connection to %s, so frames travel over gRPC: %s", self._address, problem)


def _value(metadata: Iterable[tuple[str, Any]], wanted: str) -> str | None:
    for key, value in metadata:
        if key == wanted:
            return str(value)
    return None
