"""The network: channels between simulated processes, and the calls on them.

What stands in for gRPC is as thin as it can be: a ``Channel`` (connectivity, as the code under test watches it) and a
``SimulatedStream`` (``streams``). Requests and answers cross as bytes, so that
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
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames import ColumnReplies, OnReply, TakeColumns, error_of_fault
from handfast.frames.failure import failure_of_error, lost
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from tests.simulation.faults import CrashOnMessage, MessageFault, PauseOnMessage
from tests.simulation.loop import ProcessLoop
from tests.simulation.together import Together

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
    columns: TakeColumns | None = None


@dataclass(slots=True, eq=False)
class Call:
    """One call that has no answer yet.

    ``rows`` is told the answer when it is the ``row`` of columns; ``driven`` says whether the coordinator's driver may
    be the one who made it.
    """

    channel: Channel
    request: Any
    on_reply: OnReply
    timeout_s: float | None
    timer: asyncio.TimerHandle | None = None
    written: bool = False
    settled: bool = False
    number: int = 0
    fault: MessageFault | None = None
    rows: ColumnReplies | None = None
    row: int = 0
    driven: bool = False

    @property
    def kind(self) -> str:
        return KINDS[type(self.request)]

    def settle(self, reply: Any) -> None:
        """Tell the caller; only the first reply counts."""
        if not self.settled:
            self.close()
            self.on_reply(reply)

    def close(self) -> None:
        """Wait for nothing more."""
        self.settled = True
        self.channel.calls.pop(id(self), None)
        if self.timer is not None:
            self.timer.cancel()


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
        self.together = Together(self)

    # -- who is there ----------------------------------------------------------------------------------------------

    def listen(self, address: str, loop: ProcessLoop, dispatch: Dispatch, columns: TakeColumns | None = None) -> None:
        """Answer at an address from now on; rows of columns that ``columns`` doesn't take are dispatched one by one."""
        if loop.alive:
            self.listeners[address] = Listener(loop, dispatch, columns)

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

    def is_next_hurt(self, kind: str) -> bool:
        """Whether a fault waits for the next message of a kind."""
        return (kind, self.counts[kind] + 1) in self.faults

    def leaves(self, call: Call) -> None:
        """A request is about to leave, alone or together with others."""
        self.counts[call.kind] += 1
        call.number = self.counts[call.kind]
        call.written = True
        self.world.observe.request_left(
            call.channel.loop.name, call.channel.address, call.request, call.number, driven=call.driven
        )

    def carry(self, call: Call) -> None:
        """Let a request leave; runs in a step of its sender."""
        self.leaves(call)
        channel = call.channel
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
        self.hurt_if_planned(call.kind, call.number, "sent", channel.loop)

    def _travel(self, call: Call, delay_s: float) -> None:
        data = _packed(call.request)

        def arrive(listener: Listener) -> None:
            listener.loop.call_soon(self._serve, call, data, listener)

        self.travel_to(call.channel, call.channel.peer, arrive, delay_s)

    def travel_to(
        self, channel: Channel, peer: ProcessLoop | None, arrive: Callable[[Listener], None], delay_s: float
    ) -> None:
        """Have something arrive at this life of the peer, if it still lives then."""

        def arrives() -> None:
            if self.is_cut(channel.ends):
                self._held.append((channel.ends, arrives))
                return
            listener = self.listeners.get(channel.address)
            if peer is not None and peer.alive and listener is not None and listener.loop is peer:
                arrive(listener)

        self.world.later(delay_s, arrives)

    def travel_back(self, channel: Channel, arrive: Callable[[], None], delay_s: float) -> None:
        """Have something arrive at the one who opened a channel, if it still lives then."""

        def arrives() -> None:
            if self.is_cut(channel.ends):
                self._held.append((channel.ends, arrives))
            elif channel.loop.alive:
                arrive()

        self.world.later(delay_s, arrives)

    def _serve(self, call: Call, data: bytes | None, listener: Listener) -> None:
        """Runs in a step of the one who is asked."""
        request = _unpacked(call.request, data)
        answered = False

        def reply(answer: Answer) -> None:
            nonlocal answered
            if answered:
                raise RuntimeError(f"a {call.kind} was answered twice")
            answered = True
            listener.loop.call_soon(self.answer_leaves, call, request, answer, listener.loop)

        if self.hurt_if_planned(call.kind, call.number, "received", listener.loop):
            return
        try:
            listener.dispatch(request, reply)
        except HandfastFault as fault:
            reply(fault)

    def answer_leaves(self, call: Call, request: Any, answer: Answer, server: ProcessLoop) -> None:
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
        self.hurt_if_planned(f"{call.kind} reply", call.number, "sent", server)

    def _travel_back(self, call: Call, answer: Answer, data: bytes | None, delay_s: float) -> None:
        self.travel_back(call.channel, lambda: self._is_heard(call, answer, data), delay_s)

    def _is_heard(self, call: Call, answer: Answer, data: bytes | None) -> None:
        call.channel.loop.call_soon(self._hear, call, answer, data)

    def _hear(self, call: Call, answer: Answer, data: bytes | None) -> None:
        """Runs in a step of the one who asked."""
        if call.settled:
            return
        if self.hurt_if_planned(f"{call.kind} reply", call.number, "received", call.channel.loop):
            return
        if isinstance(answer, HandfastFault):
            call.settle(failure_of_error(_unpacked(error_of_fault(answer), data)))
        else:
            call.settle(_unpacked(answer, data))

    def hurt_if_planned(self, kind: str, number: int, when: str, loop: ProcessLoop) -> bool:
        """Stop or kill a process as it has sent or received this message; whether it was killed."""
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


def _packed(message: Any) -> bytes | None:
    return message.SerializeToString() if isinstance(message, Message) else None


def _unpacked(message: Any, data: bytes | None) -> Any:
    return message if data is None else type(message).FromString(data)
