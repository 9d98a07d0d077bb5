"""The way to participants over gRPC.

One channel and one batched stream per participant address, kept connected, so that a participant that comes back is
noticed at once and what waits for it is sent at once. Which process a message goes to follows from what it is: phase
one goes to the process that holds the branch and to no other; phase two of a prepared branch can be done by any process
of the resource, and the holder is only the first choice.

With TLS a participant has to prove which resource it is: its server's certificate must hold the resource's own name, so
that whoever registers a false address gets no message for the resource. There is then a connection for each resource at
an address, for a connection proves one name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import grpc
import grpc.aio
from google.protobuf.message import Message

from coordinator.log.records import ParticipantRecord
from coordinator.runtime.directory import Directory
from handfast.catalog import HandfastFault
from handfast.frames import PARTICIPANT, CallFailed, CallStream, ColumnReplies, OnReply
from handfast.tls import TlsConfig, frame_dialer, open_channel
from handfast.xid import split_bqual

logger = logging.getLogger(__name__)


class _Key(NamedTuple):
    """What one connection is for: an address, and the resource that it must prove to be; empty without TLS."""

    address: str
    resource: str


@dataclass(slots=True)
class _Link:
    """The way to one address."""

    channel: grpc.aio.Channel
    stream: CallStream
    watch: asyncio.Task[None]

    @property
    def up(self) -> bool:
        """Whether the connection is up; an open stream says so without a question to gRPC."""
        return self.stream.connected or self.channel.get_state() is grpc.ChannelConnectivity.READY

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
        tls: how to trust participants, and who the coordinator is; None speaks plain text.
        certified_name: the name that the certificate of a resource's participants must hold, in which ``{resource}``
            stands for the resource; empty means the name in the address.
    """

    def __init__(
        self,
        directory: Directory,
        on_up: Callable[[str], None],
        tls: TlsConfig | None = None,
        certified_name: str = "",
    ) -> None:
        self._directory = directory
        self._on_up = on_up
        self._tls = tls
        self._certified_name = certified_name
        self._links: dict[_Key, _Link] = {}
        self._to_holders: dict[str, _Link] = {}  # by bqual
        self._to_holders_as_of = -1  # the directory's changes when these were found
        self._closing: set[asyncio.Task[None]] = set()

    # -- sending ---------------------------------------------------------------------------------------------------

    def send(
        self, bqual: str, request: Message, on_reply: OnReply, *, attempt: int, any_instance: bool, timeout_s: float
    ) -> None:
        """Send one request to the participant of a branch; see ``Transport.send``."""
        link = self._known_to_holder(bqual)
        if any_instance and (link is None or attempt > 1 or not link.up):
            link = self._to_any(bqual, attempt)
        if link is None:
            asyncio.get_running_loop().call_soon(on_reply, _nobody(bqual))
            return
        link.stream.call(request, on_reply, timeout_s=timeout_s)

    def takes_columns(self, bqual: str) -> bool:
        """Whether the way to the branch's holder is there, and one for columns; see ``Transport``."""
        link = self._known_to_holder(bqual)
        return link is not None and link.stream.takes_columns

    def send_columns(
        self, bqual: str, columns: Message, count: int, replies: ColumnReplies, *, timeout_s: float
    ) -> None:
        """Send many requests of one kind; see ``Transport.send_columns``."""
        link = self._known_to_holder(bqual)
        if link is None:
            loop, failed = asyncio.get_running_loop(), _nobody(bqual)
            for row in range(count):
                loop.call_soon(replies.single, row, failed)
            return
        link.stream.call_columns(columns, count, replies, timeout_s=timeout_s)

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

        self._link(self._key(participant)).stream.call(request, on_reply, timeout_s=timeout_s)
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

    def _known_to_holder(self, bqual: str) -> _Link | None:
        if self._to_holders_as_of != self._directory.changes:
            self._to_holders.clear()
            self._to_holders_as_of = self._directory.changes
        return self._to_holders.get(bqual) or self._to_holder(bqual)

    def _to_holder(self, bqual: str) -> _Link | None:
        """The way to the process that holds the branch; None when it is not known."""
        participant = self._directory.find(*split_bqual(bqual))
        if participant is None:
            return None
        link = self._to_holders[bqual] = self._link(self._key(participant))
        return link

    def _to_any(self, bqual: str, attempt: int) -> _Link | None:
        """The way to some process of the branch's resource, its holder first; None when there is none."""
        resource, holder = split_bqual(bqual)
        links = [self._link(self._key(known)) for known in self._directory.instances(resource, first=holder)]
        if not links:
            return None
        # A process known to be away is no choice while another is there.
        connected = [link for link in links if link.up] or links
        return connected[(attempt - 1) % len(connected)]

    # -- who is there ----------------------------------------------------------------------------------------------

    def reachable(self, participant: ParticipantRecord) -> bool:
        """Whether the connection to the process is up."""
        return self._link(self._key(participant)).up

    def batched(self, participant: ParticipantRecord) -> bool | None:
        """Whether the process takes batches; None until it has shown it."""
        return self._link(self._key(participant)).stream.batched

    def last_error(self, participant: ParticipantRecord) -> str:
        """Why the last call to the process failed; empty when it did not."""
        return self._link(self._key(participant)).stream.last_error

    def connect(self) -> None:
        """Start connecting to every known participant, and drop the links to addresses that nobody is at."""
        known = {self._key(participant) for participant in self._directory}
        for key in known:
            self._link(key)
        for key in set(self._links) - known:
            self._drop(key)

    def connect_now(self, participant: ParticipantRecord) -> None:
        """Connect to a process that just said where it is, without waiting out the backoff of failed attempts."""
        key = self._key(participant)
        if self._link(key).channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            self._drop(key)
            self._link(key)

    async def close(self) -> None:
        """End every connection; calls under way fail."""
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(link.close() for link in links), *self._closing)

    # -- links -----------------------------------------------------------------------------------------------------

    def _key(self, participant: ParticipantRecord) -> _Key:
        certified = self._tls is not None and self._certified_name
        return _Key(participant.address, participant.resource if certified else "")

    def _drop(self, key: _Key) -> None:
        self._to_holders.clear()
        task = asyncio.create_task(self._links.pop(key).close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _link(self, key: _Key) -> _Link:
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = self._make_link(key.address, key.resource)
        return link

    def _make_link(self, address: str, resource: str) -> _Link:
        name = self._certified_name.format(resource=resource) if resource else None
        channel = open_channel(address, self._tls, name)
        stream = CallStream(channel, PARTICIPANT, peer=address, dialer=frame_dialer(address, self._tls, name))
        return _Link(channel, stream, asyncio.create_task(self._watch(address, channel)))

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
