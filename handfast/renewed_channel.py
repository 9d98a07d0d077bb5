"""A channel whose certificates may be replaced.

The credentials of a gRPC channel are fixed when it is made. Here a channel is made anew, underneath, when it is not
connected, is asked to connect, and the files hold something else than before. A connection that stands is left alone:
it was trusted when it was made, and the server's maximum connection age ends it in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from handfast.pem_files import PemFiles, Pems

if TYPE_CHECKING:
    Channel = object  # its stub gives the abstract methods other types than the run time has
else:
    Channel = grpc.aio.Channel


class RenewedChannel(Channel):
    """The channel.

    Args:
        files: certificate, key and authorities.
        make: makes a channel that uses them.

    Raises:
        OSError: the files can't be read.
    """

    def __init__(self, files: PemFiles, make: Callable[[Pems], grpc.aio.Channel]) -> None:
        self._files = files
        self._make = make
        self._channel = make(files.read())
        self._closing: set[asyncio.Task[None]] = set()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See grpc.aio.Channel."""
        state = self._channel.get_state()
        if try_to_connect and state in {grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.TRANSIENT_FAILURE}:
            self._renew()
        return self._channel.get_state(try_to_connect=try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See grpc.aio.Channel; returns too when the channel was made anew."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See grpc.aio.Channel."""
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        """See grpc.aio.Channel."""
        await asyncio.gather(self._channel.close(grace), *self._closing)

    async def __aenter__(self) -> RenewedChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _renew(self) -> None:
        pems = self._files.reread()
        if pems is None:
            return
        old, self._channel = self._channel, self._make(pems)
        # Whoever waits for the old one to change is woken by its end, and looks at the new one.
        task = asyncio.get_running_loop().create_task(old.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._channel.unary_unary(*args, **kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._channel.unary_stream(*args, **kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._channel.stream_unary(*args, **kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._channel.stream_stream(*args, **kwargs)
