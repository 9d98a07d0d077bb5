"""The way to participants over gRPC.

One channel and one batched stream per participant address, kept connected, so that a participant that comes back is
noticed at once and what waits for it is sent at once. Which process a message goes to follows from what it is: phase
one goes to the process that holds the branch and to no other; phase two of a prepared branch can be done by any process
of the resource, and the holder is only the first choice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import grpc.aio
from google.protobuf.message import Message

from coordinator.log.records import ParticipantRecord
from coordinator.runtime.directory import Directory
from handfast.catalog import HandfastFault
from handfast.frames import PARTICIPANT, CallFailed, CallStream, OnReply, channel_options
from handfast.xid import split_bqual

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Link:
    """The way to one address."""

    channel: grpc.aio.Channel
    stream: CallStream
    watch: asyncio.Task[None]
    last_error: str = ""

    async def close(self) -> None:
        self.watch.cancel()
        await asyncio.gather(self.watch, return_exceptions=True)
        await self.stream.close()
        await self.channel.close(grace=None)


class Links:
    """Carries requests to participants (see ``Transport``).

    Args:
        directory: who is where.
        on_up: told an address when the connection to it came up.
        credentials: for TLS; None speaks plain text.
    """

    def __init__(
        self,
        directory: Directory,
        on_up: Callable[[str], None],
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._directory = directory
        self._on_up = on_up
        self._credentials = credentials
        self._links: dict[str, _Link] = {}
        self._closing: set[asyncio.Task[None]] = set()

    # -- sending ---------------------------------------------------------------------------------------------------

    def send(
        self, bqual: str, request: Message, on_reply: OnReply, *, attempt: int, any_instance: bool, timeout_s: float
    ) -> None:
        """Send one request to the participant of a branch; see ``Transport.send``."""
        participant = self._choose(bqual, attempt, any_instance)
        if participant is None:
            asyncio.get_running_loop().call_soon(on_reply, _nobody(bqual))
            return
        self._call(participant, request, on_reply, timeout_s)

    async def ask(self, participant: ParticipantRecord, request: Message, timeout_s: float) -> Message:
        """Ask one participant process.

        Args:
            participant: whom.
            request: any request of the Participant service.
            timeout_s: how long to wait for the answer.

        Raises:
            CallFailed: it gave none.
        """
        answer: asyncio.Future[Message | CallFailed] = asyncio.get_running_loop().create_future()

        def on_reply(reply: Message | CallFailed) -> None:
            if not answer.done():
                answer.set_result(reply)

        self._call(participant, request, on_reply, timeout_s)
        reply = await answer
        if isinstance(reply, CallFailed):
            raise reply
        return reply

    async def ask_resource(self, resource: str, request: Message, timeout_s: float) -> Message:
        """Ask the resource's processes in turn, connected ones first, until one answers.

        Args:
            resource: which.
            request: a request that any process of the resource can answer.
            timeout_s: how long to wait for each.

        Raises:
            CallFailed: none did; the last one's failure.
        """
        failure = _nobody(resource)
        for participant in sorted(self._directory.instances(resource), key=lambda known: not self.reachable(known)):
            try:
                return await self.ask(participant, request, timeout_s)
            except CallFailed as problem:
                failure = problem
        raise failure

    def _choose(self, bqual: str, attempt: int, any_instance: bool) -> ParticipantRecord | None:
        resource, holder = split_bqual(bqual)
        if not any_instance:
            return self._directory.find(resource, holder)
        instances = self._directory.instances(resource, first=holder)
        if not instances:
            return None
        # A process known to be away is no choice while another is there.
        connected = [known for known in instances if self.reachable(known)] or instances
        return connected[(attempt - 1) % len(connected)]

    def _call(self, participant: ParticipantRecord, request: Message, on_reply: OnReply, timeout_s: float) -> None:
        link = self._link(participant.address)

        def noted(reply: Message | CallFailed) -> None:
            link.last_error = reply.message if isinstance(reply, CallFailed) else ""
            on_reply(reply)

        link.stream.call(request, noted, timeout_s=timeout_s)

    # -- who is there ----------------------------------------------------------------------------------------------

    def reachable(self, participant: ParticipantRecord) -> bool:
        """Whether the connection to the process is up."""
        return self._link(participant.address).channel.get_state() is grpc.ChannelConnectivity.READY

    def batched(self, participant: ParticipantRecord) -> bool | None:
        """Whether the process takes batches; None until it has shown it."""
        return self._link(participant.address).stream.batched

    def last_error(self, participant: ParticipantRecord) -> str:
        """Why the last call to the process failed; empty when it did not."""
        return self._link(participant.address).last_error

    def connect(self) -> None:
        """Start connecting to every known participant, and drop the links to addresses that nobody is at."""
        known = {participant.address for participant in self._directory}
        for address in known:
            self._link(address)
        for address in set(self._links) - known:
            self._drop(address)

    def connect_now(self, address: str) -> None:
        """Connect to an address where somebody just said to be, without waiting out the backoff of failed attempts."""
        if self._link(address).channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            self._drop(address)
            self._link(address)

    async def close(self) -> None:
        """End every connection; calls under way fail."""
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(link.close() for link in links), *self._closing)

    # -- links -----------------------------------------------------------------------------------------------------

    def _drop(self, address: str) -> None:
        task = asyncio.create_task(self._links.pop(address).close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _link(self, address: str) -> _Link:
        link = self._links.get(address)
        if link is None:
            channel = self._open(address)
            stream = CallStream(channel, PARTICIPANT, peer=address)
            watch = asyncio.create_task(self._watch(address, channel))
            link = self._links[address] = _Link(channel, stream, watch)
        return link

    def _open(self, address: str) -> grpc.aio.Channel:
        options = channel_options()
        if self._credentials is None:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, self._credentials, options=options)

    async def _watch(self, address: str, channel: grpc.aio.Channel) -> None:
        """Keep the channel connected, and tell when it came up."""
        while True:
            state = channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                return
            if state is grpc.ChannelConnectivity.READY:
                logger.info("participant at %s is connected", address)
                self._on_up(address)
            await channel.wait_for_state_change(state)


def _nobody(whom: str) -> CallFailed:
    fault = HandfastFault("RESOURCE_UNKNOWN", resource=whom)
    return CallFailed(
        fault.code,
        fault.message,
        mend=fault.mend,
        grpc_status=grpc.StatusCode.FAILED_PRECONDITION.value[0],
        maybe_executed=False,
    )
