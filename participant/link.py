"""The link to the coordinator: registering, enlisting, asking what was decided.

Registration is repeated: until it first works, whenever the connection has come back, and now and then in between. A
coordinator that restarted has a new epoch; whoever registers learns it, and recovery is woken, because a coordinator's
death is what leaves branches in doubt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc
import grpc.aio

from handfast.bearer import bearer
from handfast.catalog import HandfastFault
from handfast.frames import COORDINATOR, CallFailed, CallStream
from handfast.tls import TlsConfig, frame_dialer, open_channel
from handfast.v1 import coordinator_pb2 as c
from participant.clock import Clock
from participant.config import ParticipantOptions

log = logging.getLogger(__name__)

_ASK_S = 5.0


class Link:
    """The way from one participant to its coordinator.

    Args:
        address: the coordinator's, ``host:port``.
        tls: how to trust it, and who this process is; None speaks plain text.
        registration: says what to register, each time.
        options: retries and timeouts.
        clock: where time comes from.
        on_registered: told the coordinator's id and epoch after each registration.
        token_file: a file with a bearer token; None when the coordinator asks for none.
    """

    def __init__(
        self,
        address: str,
        tls: TlsConfig | grpc.ChannelCredentials | None,
        registration: Callable[[], c.RegisterRequest],
        options: ParticipantOptions,
        clock: Clock,
        on_registered: Callable[[str, int], None],
        token_file: Path | str | None = None,
    ) -> None:
        self._address = address
        self._tls = tls
        self._registration = registration
        self._options = options
        self._clock = clock
        self._on_registered = on_registered
        self._token_file = token_file
        self._channel: grpc.aio.Channel | None = None
        self._stream: CallStream | None = None
        self._task: asyncio.Task[None] | None = None
        self._registered = asyncio.Event()
        self._failing = False

    @property
    def registered(self) -> bool:
        """Whether the coordinator has taken the registration at least once."""
        return self._registered.is_set()

    async def open(self) -> None:
        """Begin to register; returns at once.

        Raises:
            OSError: a file of the TLS settings can't be read.
        """
        self._channel = open_channel(self._address, self._tls)
        peer = f"the coordinator at {self._address}"
        dialer = frame_dialer(self._address, self._tls)
        metadata = bearer(self._token_file)
        self._stream = CallStream(self._channel, COORDINATOR, peer=peer, metadata=metadata, dialer=dialer)
        self._task = asyncio.create_task(self._keep_registered(self._channel))

    async def close(self) -> None:
        """Stop registering and close the connection; every call under way fails."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._stream is not None:
            await self._stream.close()
        if self._channel is not None:
            await self._channel.close(None)

    async def enlist(self, gtrid: str, resource: str, instance: str, deadline_s: float) -> None:
        """Tell the coordinator of a branch; repeated while the coordinator can't be reached.

        Args:
            gtrid: the transaction.
            resource: the resource.
            instance: this process.
            deadline_s: the transaction's deadline by the monotonic clock.

        Raises:
            HandfastFault: ENLIST_FAILED.
        """
        give_up_s = min(deadline_s, self._clock.monotonic_s() + self._options.enlist_timeout_s)
        delay_s = self._options.retry_first_s
        while True:
            now_s = self._clock.monotonic_s()
            timeout_ms = max(1, round(1000 * (deadline_s - now_s)))
            request = c.EnlistRequest(gtrid=gtrid, resource=resource, instance=instance, timeout_ms=timeout_ms)
            try:
                if not self._registered.is_set():
                    await self._registered_by(give_up_s)
                await self._ask(request, max(0.001, give_up_s - now_s))
                return
            except CallFailed as failure:
                if failure.answered or self._clock.monotonic_s() + delay_s >= give_up_s:
                    bqual = f"{resource}.{instance}"
                    raise HandfastFault("ENLIST_FAILED", gtrid=gtrid, bqual=bqual, problem=str(failure)) from failure
            await self._clock.sleep(self._clock.jittered(delay_s))
            delay_s = min(2 * delay_s, self._options.retry_max_s)

    async def inquire(self, gtrid: str, bqual: str) -> c.InquireResponse:
        """Ask what was decided.

        Raises:
            CallFailed: there was no answer.
        """
        return cast("c.InquireResponse", await self._ask(c.InquireRequest(gtrid=gtrid, bqual=bqual), _ASK_S))

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _ask(self, request: c.EnlistRequest | c.InquireRequest | c.RegisterRequest, timeout_s: float) -> object:
        if self._stream is None:
            raise RuntimeError("the link to the coordinator is not open")
        return await self._stream.ask(request, timeout_s=timeout_s)

    async def _registered_by(self, give_up_s: float) -> None:
        """Wait for the first registration: before it the coordinator knows no way to us."""
        try:
            async with asyncio.timeout(max(0.0, give_up_s - self._clock.monotonic_s())):
                await self._registered.wait()
        except TimeoutError:
            number: int = grpc.StatusCode.UNAVAILABLE.value[0]
            problem = f"The coordinator at {self._address} has not taken this participant's registration yet."
            raise CallFailed("UNREACHABLE", problem, grpc_status=number, maybe_executed=False) from None

    async def _keep_registered(self, channel: grpc.aio.Channel) -> None:
        while True:
            await self._register()
            interval = asyncio.create_task(self._clock.sleep(self._clock.jittered(self._options.register_interval_s)))
            back = asyncio.create_task(_until_reconnected(channel))
            try:
                await asyncio.wait({interval, back}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                interval.cancel()
                back.cancel()
                await asyncio.gather(interval, back, return_exceptions=True)

    async def _register(self) -> None:
        delay_s = self._options.retry_first_s
        while True:
            try:
                reply = cast("c.RegisterResponse", await self._ask(self._registration(), _ASK_S))
            except CallFailed as failure:
                if not self._failing:
                    log.warning("registering failed, trying on: %s", failure)
                self._failing = True
                await self._clock.sleep(self._clock.jittered(delay_s))
                delay_s = min(2 * delay_s, self._options.retry_max_s)
                continue
            self._failing = False
            self._registered.set()
            self._on_registered(reply.coordinator_id, reply.epoch)
            return


async def _until_reconnected(channel: grpc.aio.Channel) -> None:
    """Return when the connection has been lost and is there again."""
    ready = grpc.ChannelConnectivity.READY
    while channel.get_state(try_to_connect=True) is ready:
        await channel.wait_for_state_change(ready)
    while (state := channel.get_state(try_to_connect=True)) is not ready:
        await channel.wait_for_state_change(state)
