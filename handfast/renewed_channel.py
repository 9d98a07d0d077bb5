"""A channel whose certificates may be replaced.

The credentials of a gRPC channel are fixed when it is made. Here a channel is made anew, underneath, when it is not
connected and the files hold something else than before: when it is asked to connect, and every second while it fails,
for gRPC shows no change of state between one failed attempt and the next. A connection that stands is left alone: it
was trusted when it was made, and the server's maximum connection age ends it in time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from handfast.pem_files import PemFiles, Pems

if TYPE_CHECKING:
    Channel = object  # its stub gives the abstract methods other types than the run time has
else:
    Channel = grpc.aio.Channel


FAILING_LOOK_S = 1.0
"""How often a channel that can't connect looks at its files, in seconds."""

_UNCONNECTED = {grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.TRANSIENT_FAILURE}


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
        self._watch: tuple[grpc.aio.Channel, grpc.ChannelConnectivity, asyncio.Task[None]] | None = None

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See grpc.aio.Channel."""
        if try_to_connect and self._channel.get_state() in _UNCONNECTED:
            self._renew()
        return self._channel.get_state(try_to_connect=try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See grpc.aio.Channel; returns too when the channel was made anew."""
        channel = self._channel
        look_s = FAILING_LOOK_S if last_observed_state is grpc.ChannelConnectivity.TRANSIENT_FAILURE else None
        while channel is self._channel and channel.get_state() is last_observed_state:
            changed = self._changed(channel, last_observed_state)
            await asyncio.wait({changed}, timeout=look_s)
            if changed.done():
                return
            self._renew()

    async def channel_ready(self) -> None:
        """See grpc.aio.Channel."""
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        """See grpc.aio.Channel."""
        await asyncio.gather(self._channel.close(grace), *self._closing)
        if self._watch is not None:
            self._watch[2].cancel()
            await asyncio.gather(self._watch[2], return_exceptions=True)

    async def __aenter__(self) -> RenewedChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _changed(self, channel: grpc.aio.Channel, last: grpc.ChannelConnectivity) -> asyncio.Task[None]:
        """Done when the channel's state is another; one for all who wait, for gRPC can't take such a question back."""
        if self._watch is not None:
            watched, state, task = self._watch
            if watched is channel and state is last and not task.done():
                return task
        task = asyncio.get_running_loop().create_task(_change(channel, last))
        self._watch = channel, last, task
        return task

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


async def _change(channel: grpc.aio.Channel, last: grpc.ChannelConnectivity) -> None:
    with contextlib.suppress(grpc.aio.UsageError):  # it was closed, which is a change
        await channel.wait_for_state_change(last)
