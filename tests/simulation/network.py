"""The network: channels between simulated processes, and the calls on them.

What stands in for gRPC is as thin as it can be: a ``Channel`` (connectivity, as the code under test watches it) and a
``SimulatedStream`` (a ``CallStream``: call, ask, the three ways to fail). Requests and answers cross as bytes, so that
nothing is shared. What is certain about a call that failed follows the same rule as in ``handfast.frames.calls``:
nothing is written before the channel is READY, and what was written may have been done.

Messages leave one by one, each in a step of its own, so that a crash can fall between two of them; they arrive after a
delay that differs from message to message, so that they overtake one another. Behind a partition they wait, as TCP
would repeat them, until it heals or the connection is given up. A request that is on its way when its sender dies
arrives all the same; one that is on its way to a process that dies does not reach its next life.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames import CallFailed, CallStream, OnReply, error_of_fault
from handfast.frames.failure import failure_of_error, lost, timed_out, unreachable
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from tests.simulation.faults import CrashOnMessage, MessageFault, PauseOnMessage
from tests.simulation.loop import ProcessLoop

if TYPE_CHECKING:
    from tests.simulation.world import World

KINDS: dict[type, str] = {
    p.PrepareRequest: "Prepare",
    p.ParticipantCommitRequest: "Commit",
    p.CommitOnePhaseRequest: "CommitOnePhase",
    p.ParticipantRollbackRequest: "Rollback",
    p.RecoverRequest: "Recover",
    p.ForgetRequest: "Forget",
    c.BeginRequest: "Begin",
    c.EnlistRequest: "Enlist",
    c.CommitRequest: "ClientCommit",
    c.RollbackRequest: "ClientRollback",
    c.ExecuteRequest: "Execute",
    c.InquireRequest: "Inquire",
    c.RegisterRequest: "Register",
}

LATENCY_S_MIN, LATENCY_S_MAX = 0.0002, 0.004
CONNECT_TIMEOUT_S = 5.0
RECONNECT_S_MIN, RECONNECT_S_MAX = 0.1, 1.0
KEEPALIVE_S = 25.0
"""After how long a connection behind a partition is given up."""

READY = grpc.ChannelConnectivity.READY
FAILED = grpc.ChannelConnectivity.TRANSIENT_FAILURE

Answer = Message | HandfastFault
Dispatch = Callable[[Any, Callable[[Any], None]], None]


@dataclass(frozen=True, slots=True)
class WorkRequest:
    """A call of a service's own method, inside a transaction.

    Args:
        metadata: what carries the transaction.
        row: which row.
        amount: what to add.
    """

    metadata: tuple[tuple[str, str], ...]
    row: str
    amount: int


@dataclass(frozen=True, slots=True)
class WorkDone:
    """Its answer.

    Args:
        metadata: the branches that joined.
    """

    metadata: tuple[tuple[str, str], ...]


KINDS[WorkRequest] = "Work"


@dataclass(frozen=True, slots=True)
class Listener:
    """Who answers at an address."""

    loop: ProcessLoop
    dispatch: Dispatch


@dataclass(slots=True, eq=False)
class Call:
    """One call that has no answer yet."""

    channel: Channel
    request: Any
    on_reply: OnReply
    timeout_s: float | None
    timer: asyncio.TimerHandle | None = None
    written: bool = False
    settled: bool = False
    number: int = 0
    fault: MessageFault | None = None

    @property
    def kind(self) -> str:
        return KINDS[type(self.request)]

    def settle(self, reply: Any) -> None:
        """Tell the caller; only the first reply counts."""
        if self.settled:
            return
        self.settled = True
        self.channel.calls.pop(id(self), None)
        if self.timer is not None:
            self.timer.cancel()
        self.on_reply(reply)


class Network:
    """Everything between the processes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.listeners: dict[str, Listener] = {}
        self.channels: list[Channel] = []
        self.cuts: dict[frozenset[str], int] = {}
        self.counts: Counter[str] = Counter()
        self.faults: dict[tuple[str, int], MessageFault] = {}
        self.crashes: dict[tuple[str, int, str], CrashOnMessage] = {}
        self.pauses: dict[tuple[str, int], PauseOnMessage] = {}
        self.repeated: dict[str, None] = {}
        self._held: list[tuple[frozenset[str], Callable[[], None]]] = []

    # -- who is there ----------------------------------------------------------------------------------------------

    def listen(self, address: str, loop: ProcessLoop, dispatch: Dispatch) -> None:
        """Answer at an address from now on."""
        if loop.alive:
            self.listeners[address] = Listener(loop, dispatch)

    def on_process_gone(self, loop: ProcessLoop) -> None:
        """A process has died: its own calls end unheard, and its peers hear of a broken connection."""
        for address, listener in list(self.listeners.items()):
            if listener.loop is loop:
                del self.listeners[address]
        self.channels = [channel for channel in self.channels if channel.loop is not loop]
        for channel in self.channels:
            if channel.peer is loop and not self.is_cut(channel.ends):
                self.world.later(self.latency_s(), channel.break_from, loop, "connection reset")

    def open(self, loop: ProcessLoop, address: str) -> Channel:
        """Make a channel."""
        channel = Channel(self, loop, address)
        self.channels.append(channel)
        return channel

    def latency_s(self) -> float:
        """How long one message takes."""
        return self.world.random.uniform(LATENCY_S_MIN, LATENCY_S_MAX)

    # -- partitions ------------------------------------------------------------------------------------------------

    def is_cut(self, ends: frozenset[str]) -> bool:
        """Whether the two can't reach one another."""
        return self.cuts.get(ends, 0) > 0

    def cut(self, ends: frozenset[str]) -> None:
        """Open a partition."""
        self.cuts[ends] = self.cuts.get(ends, 0) + 1
        self.world.later(KEEPALIVE_S, self._give_up, ends)

    def heal(self, ends: frozenset[str]) -> None:
        """Close it again."""
        if self.cuts.get(ends, 0) == 0:
            return
        self.cuts[ends] -= 1
        if self.is_cut(ends):
            return
        held, self._held = self._held, []
        for between, arrive in held:
            if between != ends:
                self._held.append((between, arrive))
            else:
                self.world.later(self.latency_s() + self.world.random.uniform(0.0, 0.2), arrive)
        for channel in self.channels:
            if channel.ends == ends and channel.peer is not None and not channel.peer.alive:
                self.world.later(self.latency_s(), channel.break_from, channel.peer, "connection reset")

    def _give_up(self, ends: frozenset[str]) -> None:
        if not self.is_cut(ends):
            return
        self._held = [(between, arrive) for between, arrive in self._held if between != ends]
        for channel in self.channels:
            if channel.ends == ends and channel.peer is not None:
                channel.break_from(channel.peer, "keepalive watchdog timeout")

    # -- one call --------------------------------------------------------------------------------------------------

    def carry(self, call: Call) -> None:
        """Let a request leave; runs in a step of its sender."""
        self.counts[call.kind] += 1
        call.number = self.counts[call.kind]
        call.written = True
        channel = call.channel
        self.world.observe.request_left(channel.loop.name, channel.address, call.request, call.number)
        call.fault = self.faults.get((call.kind, call.number))
        effect = call.fault.effect if call.fault is not None else ""
        delay_s = self.latency_s()
        if call.fault is not None:
            self.world.count_fault(call.fault, f"{effect} of {call.kind} {call.number}")
            if effect == "delay request":
                delay_s += call.fault.delay_s
            elif effect == "repeat":
                self.repeated[getattr(call.request, "gtrid", "")] = None
                self._travel(call, delay_s + call.fault.delay_s)
        if effect == "break before":
            self.world.later(delay_s, channel.break_from, channel.peer, "connection reset")
        elif effect != "lose request":
            self._travel(call, delay_s)
        self._hurt_if_planned(call.kind, call.number, "sent", channel.loop)

    def _travel(self, call: Call, delay_s: float) -> None:
        peer = call.channel.peer
        data = _packed(call.request)

        def arrive() -> None:
            if self.is_cut(call.channel.ends):
                self._held.append((call.channel.ends, arrive))
                return
            listener = self.listeners.get(call.channel.address)
            if peer is not None and peer.alive and listener is not None and listener.loop is peer:
                peer.call_soon(self._serve, call, data, listener)

        self.world.later(delay_s, arrive)

    def _serve(self, call: Call, data: bytes | None, listener: Listener) -> None:
        """Runs in a step of the one who is asked."""
        request = _unpacked(call.request, data)
        answered = False

        def reply(answer: Answer) -> None:
            nonlocal answered
            if answered:
                raise RuntimeError(f"a {call.kind} was answered twice")
            answered = True
            listener.loop.call_soon(self._answer_leaves, call, request, answer, listener.loop)

        if self._hurt_if_planned(call.kind, call.number, "received", listener.loop):
            return
        try:
            listener.dispatch(request, reply)
        except HandfastFault as fault:
            reply(fault)

    def _answer_leaves(self, call: Call, request: Any, answer: Answer, server: ProcessLoop) -> None:
        """Runs in a step of the one who was asked."""
        self.world.observe.reply_left(server.name, call.channel.loop.name, request, answer)
        effect = call.fault.effect if call.fault is not None else ""
        delay_s = self.latency_s()
        data = _packed(error_of_fault(answer) if isinstance(answer, HandfastFault) else answer)
        if effect == "break after":
            self.world.later(delay_s, call.channel.break_from, server, "connection reset")
        elif effect != "lose reply":
            if effect == "delay reply" and call.fault is not None:
                delay_s += call.fault.delay_s
            self._travel_back(call, answer, data, delay_s)
        self._hurt_if_planned(f"{call.kind} reply", call.number, "sent", server)

    def _travel_back(self, call: Call, answer: Answer, data: bytes | None, delay_s: float) -> None:
        def arrive() -> None:
            if self.is_cut(call.channel.ends):
                self._held.append((call.channel.ends, arrive))
            elif call.channel.loop.alive:
                call.channel.loop.call_soon(self._hear, call, answer, data)

        self.world.later(delay_s, arrive)

    def _hear(self, call: Call, answer: Answer, data: bytes | None) -> None:
        """Runs in a step of the one who asked."""
        if call.settled:
            return
        if self._hurt_if_planned(f"{call.kind} reply", call.number, "received", call.channel.loop):
            return
        if isinstance(answer, HandfastFault):
            call.settle(failure_of_error(_unpacked(error_of_fault(answer), data)))
        else:
            call.settle(_unpacked(answer, data))

    def _hurt_if_planned(self, kind: str, number: int, when: str, loop: ProcessLoop) -> bool:
        pause = self.pauses.get((kind, number)) if when == "sent" else None
        if pause is not None:
            self.world.pause(loop, pause, pause.for_s)
        crash = self.crashes.get((kind, number, when))
        if crash is None or not loop.alive:
            return False
        self.world.count_fault(crash, f"{loop.name} dies as it has {when} {kind} {number}")
        self.world.crash(loop.name, crash.down_s)
        return True


class Channel:
    """A channel, as far as the code under test looks at one.

    Args:
        network: where it is.
        loop: whose it is.
        address: where it leads.
    """

    def __init__(self, network: Network, loop: ProcessLoop, address: str) -> None:
        self.network = network
        self.loop = loop
        self.address = address
        self.ends = frozenset((loop.name, address.partition(":")[0]))
        self.state = grpc.ChannelConnectivity.IDLE
        self.peer: ProcessLoop | None = None
        self.calls: dict[int, Call] = {}
        self.on_disconnect: Callable[[], None] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._connecting = False
        self._closed = False
        self._backoff_s = RECONNECT_S_MIN

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See grpc.aio.Channel."""
        if try_to_connect and self.state is not READY and not self._connecting and not self._closed:
            self._connecting = True
            self.loop.call_later(self.network.latency_s(), self._attempt)
        return self.state

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        """See grpc.aio.Channel."""
        while self.state is last:
            waiting: asyncio.Future[None] = self.loop.create_future()
            self._waiting.append(waiting)
            await waiting

    async def close(self, grace: float | None = None) -> None:
        """See grpc.aio.Channel."""
        self._closed = True
        self._move(grpc.ChannelConnectivity.SHUTDOWN)

    def break_from(self, peer: ProcessLoop | None, problem: str) -> None:
        """The connection to this life of the peer is gone; every call on it fails."""
        if self._closed or self.peer is not peer or self.state is not READY or not self.loop.alive:
            return
        self.loop.call_soon(self._broken, peer, problem)

    def _broken(self, peer: ProcessLoop | None, problem: str) -> None:
        if self.peer is not peer or self.state is not READY:
            return
        self.peer = None
        self._move(FAILED)
        if self.on_disconnect is not None:
            self.on_disconnect()
        for call in list(self.calls.values()):
            call.settle(lost(self.address, problem, written=call.written))
        self._connecting = True
        self.loop.call_later(self._backoff_s, self._attempt)

    def _attempt(self) -> None:
        listener = self.network.listeners.get(self.address)
        if self._closed:
            return
        if listener is None or self.network.is_cut(self.ends):
            self._backoff_s = min(2 * self._backoff_s, RECONNECT_S_MAX)
            self._move(FAILED)
            self.loop.call_later(self._backoff_s, self._attempt)
            return
        self._connecting = False
        self._backoff_s = RECONNECT_S_MIN
        self.peer = listener.loop
        self._move(READY)

    def _move(self, state: grpc.ChannelConnectivity) -> None:
        if state is self.state:
            return
        self.state = state
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)


class SimulatedStream(CallStream):
    """A CallStream over a simulated channel.

    Args:
        channel: the way to the peer.
        on_disconnect: as CallStream's.
    """

    def __init__(self, channel: Channel, on_disconnect: Callable[[], None] | None = None) -> None:
        # Not CallStream's: that one wants gRPC's channel.
        self._way = channel
        channel.on_disconnect = on_disconnect
        self._shut = False

    @property
    def connected(self) -> bool:
        return self._way.state is READY

    @property
    def batched(self) -> bool | None:
        return True

    def call(self, request: Any, on_reply: OnReply, *, timeout_s: float | None = None) -> None:
        self._begin(request, on_reply, timeout_s)

    async def ask(self, request: Any, *, timeout_s: float | None = None) -> Message:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = self._begin(request, lambda reply: None if answer.done() else answer.set_result(reply), timeout_s)
        try:
            reply = await answer
        finally:
            call.settle(None)
        if isinstance(reply, CallFailed):
            raise reply
        return cast("Message", reply)

    async def close(self) -> None:
        self._shut = True
        for call in list(self._way.calls.values()):
            call.settle(lost(self._way.address, "this side closed it", written=call.written))

    def _begin(self, request: Any, on_reply: OnReply, timeout_s: float | None) -> Call:
        loop, channel = self._way.loop, self._way
        call = Call(channel, request, on_reply, timeout_s)
        channel.calls[id(call)] = call
        if timeout_s is not None:
            call.timer = loop.call_later(timeout_s, self._time_out, call)
        loop.call_soon(self._try, call, loop.time() + CONNECT_TIMEOUT_S)
        return call

    def _time_out(self, call: Call) -> None:
        call.settle(timed_out(self._way.address, call.timeout_s or 0.0, written=call.written))

    def _try(self, call: Call, until_s: float) -> None:
        """Write the call when the channel is READY, as ``CallStream._reach`` has it."""
        channel = self._way
        if call.settled:
            return
        state = channel.get_state(try_to_connect=True)
        if self._shut or state is grpc.ChannelConnectivity.SHUTDOWN:
            call.settle(unreachable(channel.address, "its channel is closed"))
        elif state is READY:
            channel.network.carry(call)
        elif state is FAILED or channel.loop.time() >= until_s:
            call.settle(unreachable(channel.address, "nobody answers there"))
        else:
            channel.loop.call_later(LATENCY_S_MAX, self._try, call, until_s)


def _packed(message: Any) -> bytes | None:
    return message.SerializeToString() if isinstance(message, Message) else None


def _unpacked(message: Any, data: bytes | None) -> Any:
    return message if data is None else type(message).FromString(data)
