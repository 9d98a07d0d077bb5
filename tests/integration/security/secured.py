"""A coordinator, participants and clients that speak TLS and show certificates."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from handfast.frames import FramePort, careful, server_options
from handfast.tls import TlsConfig, open_channel
from handfast.v1 import admin_pb2_grpc, participant_pb2_grpc
from tests.certificates import Certified, Pki
from tests.integration.coordinator.edge import Edge
from tests.integration.coordinator.participants import Scripted


class Secured(Scripted):
    """A scripted participant behind TLS.

    Args:
        resource: what it says that it holds.
        held: what its certificate says.
    """

    def __init__(self, resource: str, held: Certified, instance: str = "one") -> None:
        super().__init__(resource, instance)
        self.held = held

    async def start(self) -> None:
        """Listen; after `stop` on the same port as before."""
        self.server = grpc.aio.server(options=server_options())
        participant_pb2_grpc.add_ParticipantServicer_to_server(self.servicer(), careful(self.server))
        self.port = self.server.add_secure_port(f"127.0.0.1:{self.port}", self.held.server().credentials())
        self.frame_port = FramePort("127.0.0.1", tls=self.held.server().files())
        await self.server.start()


class SecuredEdge(Edge):
    """A coordinator over TLS; its own channel is an operator's.

    Args:
        held: the coordinator's certificate.
        admin: the operator's.
    """

    def __init__(self, held: Certified, admin: Certified, **settings: Any) -> None:
        files = {"tls_cert": held.cert, "tls_key": held.key, "tls_client_ca": held.ca, "participant_ca": held.ca}
        super().__init__(None, **(files | settings))
        self.held = held
        self._admin = admin

    async def start(self) -> None:
        """Serve."""
        await self.server.start()
        self.channel = self.channel_of(self._admin.client())
        self.admin = admin_pb2_grpc.AdminStub(self.channel)

    def channel_of(self, tls: TlsConfig) -> grpc.aio.Channel:
        """Another's way to it."""
        return open_channel(self.server.address, tls, None)

    def as_(self, held: Certified) -> "Edge":
        """The same coordinator, as somebody else reaches it."""
        view = object.__new__(Edge)
        view.server, view.log, view.broken = self.server, self.log, self.broken
        view.channel = self.channel_of(held.client())
        view.admin = admin_pb2_grpc.AdminStub(view.channel)
        self.views.append(view.channel)
        return view

    @property
    def views(self) -> list[grpc.aio.Channel]:
        """The channels of others, to be closed."""
        return self.__dict__.setdefault("_views", [])  # type: ignore[no-any-return]  # this list


@asynccontextmanager
async def secured(pki: Pki, *participants: Scripted, **settings: Any) -> AsyncIterator[SecuredEdge]:
    """Serve a coordinator over mutual TLS for as long as the block lasts; nobody is registered."""
    async with AsyncExitStack() as stack:
        for one in participants:
            await one.start()
            stack.push_async_callback(one.stop)
        edge = SecuredEdge(pki.coordinator(), pki.admin("alice"), **({"stop_grace_s": 0} | settings))
        await edge.start()
        stack.push_async_callback(edge.server.stop)
        await edge.server.recovery.close()
        try:
            yield edge
        finally:
            for channel in (edge.channel, *edge.views):
                await channel.close(None)


def pki_in(folder: Path) -> Pki:
    """An authority whose files are there."""
    return Pki(folder / "pki")
