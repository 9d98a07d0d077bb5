"""Calls that travel together as columns, each of which can be hurt by itself all the same.

What is sent as columns is taken apart here into its rows. A row that a fault waits for travels alone, with its fault;
the others leave together, in one message or in a few, which overtake one another as all messages do. On the other side
whoever takes columns is given them, and else each row is asked by itself. Answers go back in the same way: those that
say no more than columns can go together with whatever else is ready soon.

The columns themselves, their rows and their answers are the product's own (``handfast.frames.columns``), and cross as
bytes; what is replaced is the frame connection under them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from handfast.catalog import HandfastFault
from handfast.frames import COORDINATOR, PARTICIPANT
from handfast.frames.columns import ColumnKind, Commits, Executes, Prepares
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from tests.simulation.loop import ProcessLoop

if TYPE_CHECKING:
    from tests.simulation.network import Call, Channel, Listener, Network

GATHERED_S = (0.0, 0.005, 0.03)
"""How long an answer waits for others."""

KINDS: dict[type, ColumnKind] = {kind.request: kind for kind in (*COORDINATOR.columns, *PARTICIPANT.columns)}
"""What can travel together, by the requests' type."""


@dataclass(frozen=True, slots=True)
class _Answered:
    """An answer to a row that waits for others."""

    call: Call
    request: Any
    answer: Any
    shape: Hashable


class Together:
    """Carries calls of one kind, and their answers, over one network.

    Args:
        network: whose faults strike them.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._world = network.world
        self._ids = count(1)
        self._gathered: dict[tuple[ProcessLoop, Channel], list[_Answered]] = {}

    # -- there -----------------------------------------------------------------------------------------------------

    def carry(self, calls: Sequence[Call]) -> None:
        """Let calls of one shape leave; runs in a step of their sender."""
        network, unhurt = self._network, []
        for call in calls:
            if network.is_next_hurt(call.kind):
                network.carry(call)
            elif call.channel.loop.alive:
                network.leaves(call)
                unhurt.append(call)
        for some in self._parts(unhurt):
            self._travel(some)
        for call in unhurt:
            network.hurt_if_planned(call.kind, call.number, "sent", call.channel.loop)

    def _parts(self, calls: list[Any]) -> Iterable[list[Any]]:
        """All of them, mostly; else cut in two."""
        random = self._world.random
        if len(calls) < 2 or random.random() < 0.7:
            return [calls] if calls else []
        cut = random.randrange(1, len(calls))
        return [calls[:cut], calls[cut:]]

    def _travel(self, calls: list[Call]) -> None:
        channel, peer = calls[0].channel, calls[0].channel.peer
        kind = KINDS[type(calls[0].request)]
        first_id = next(self._ids)
        for _ in calls[1:]:
            next(self._ids)
        data = columns_of(kind, first_id, [call.request for call in calls]).SerializeToString()

        def arrive(listener: Listener) -> None:
            listener.loop.call_soon(self._serve, kind, dict(enumerate(calls, first_id)), data, listener)

        self._network.travel_to(channel, peer, arrive, self._network.latency_s())

    def _serve(self, kind: ColumnKind, calls: dict[int, Call], data: bytes, listener: Listener) -> None:
        """Runs in a step of the one who is asked."""
        for call in calls.values():
            if self._network.hurt_if_planned(call.kind, call.number, "received", listener.loop):
                return
        columns = kind.calls.FromString(data)
        assert not kind.problem(columns), kind.problem(columns)
        reply = _RowReplies(self, kind, calls, columns, listener.loop)
        if listener.columns is not None and listener.columns(columns, 0, len(calls), reply):
            return
        for row, call_id in enumerate(calls):
            try:
                listener.dispatch(kind.request_of(columns, row), partial(reply.single, call_id))
            except HandfastFault as fault:
                reply.single(call_id, fault)

    # -- and back --------------------------------------------------------------------------------------------------

    def answer(self, server: ProcessLoop, call: Call, request: Any, answer: Any) -> None:
        """A row is answered; a plain answer waits for others."""
        if isinstance(answer, HandfastFault) or (shape := KINDS[type(request)].answer_shape(answer)) is None:
            server.call_soon(self._network.answer_leaves, call, request, answer, server)
            return
        way = (server, call.channel)
        waiting = self._gathered.setdefault(way, [])
        waiting.append(_Answered(call, request, answer, shape))
        if len(waiting) == 1:
            server.call_later(self._world.random.choice(GATHERED_S), self._answers_leave, way)

    def _answers_leave(self, way: tuple[ProcessLoop, Channel]) -> None:
        """Runs in a step of the one who was asked."""
        server, channel = way
        waiting = self._gathered.pop(way)
        by_shape: dict[Hashable, list[_Answered]] = {}
        for one in waiting:
            by_shape.setdefault((type(one.request), one.shape), []).append(one)
        for alike in by_shape.values():
            for some in self._parts(alike):
                for one in some:
                    self._world.observe.reply_left(server.name, channel.loop.name, one.request, one.answer)
                self._travel_back(channel, some)
        for one in waiting:
            self._network.hurt_if_planned(f"{one.call.kind} reply", one.call.number, "sent", server)

    def _travel_back(self, channel: Channel, some: list[_Answered]) -> None:
        kind = KINDS[type(some[0].request)]
        ids = range(1, len(some) + 1)
        data = kind.answer_of(ids, [one.answer for one in some]).SerializeToString()
        calls = [one.call for one in some]

        def arrive() -> None:
            channel.loop.call_soon(self._hear, kind, calls, data)

        self._network.travel_back(channel, arrive, self._network.latency_s())

    def _hear(self, kind: ColumnKind, calls: list[Call], data: bytes) -> None:
        """Runs in a step of the one who asked."""
        for call in calls:
            if not call.settled and self._network.hurt_if_planned(
                f"{call.kind} reply", call.number, "received", call.channel.loop
            ):
                return
        answer: Any = kind.answers.FromString(data)
        assert not kind.answer_problem(answer), kind.answer_problem(answer)
        for some in _neighbours([(row, call) for row, call in enumerate(calls) if not call.settled]):
            self._tell(kind, answer, some)

    def _tell(self, kind: ColumnKind, answer: Any, some: list[tuple[int, Call]]) -> None:
        start, first = some[0]
        if first.rows is None:
            for row, call in some:
                call.settle(kind.response_of(answer, row))
            return
        for _, call in some:
            call.close()
        first.rows.columns([call.row for _, call in some], answer, start)


class _RowReplies:
    """The way to answer rows; see ``ColumnsReply``."""

    def __init__(
        self, together: Together, kind: ColumnKind, calls: dict[int, Call], columns: Any, loop: ProcessLoop
    ) -> None:
        self._together = together
        self._kind = kind
        self._owed = dict(calls)
        self._columns = columns
        self._loop = loop

    def columns(self, answer: Any) -> None:
        if problem := self._kind.answer_problem(answer):
            raise ValueError(problem)
        for row, call_id in enumerate(answer.ids):
            self.single(call_id, self._kind.response_of(answer, row))

    def single(self, call_id: int, answer: Any) -> None:
        if call_id not in self._owed:
            raise RuntimeError(f"row {call_id} of {type(self._columns).__name__} was answered twice")
        request = self._kind.request_of(self._columns, call_id - self._columns.first_id)
        self._together.answer(self._loop, self._owed.pop(call_id), request, answer)


def _neighbours(heard: list[tuple[int, Call]]) -> list[list[tuple[int, Call]]]:
    """Answers by row, those put together that follow one another and answer calls of one batch."""
    found: list[list[tuple[int, Call]]] = []
    for row, call in heard:
        if found and found[-1][-1][0] == row - 1 and found[-1][-1][1].rows is call.rows:
            found[-1].append((row, call))
        else:
            found.append([(row, call)])
    return found


def shape_of(request: Any) -> Hashable:
    """What calls must share to be gathered into columns; None for what travels by itself."""
    if not isinstance(request, c.ExecuteRequest):
        return None
    work = [(operation.resource, operation.name) for operation in request.operations]
    alone = len(work) < 2 or len(dict(work)) < len(work)
    return None if alone else (request.timeout_ms, request.wait, bool(request.gtrid), *work)


def columns_of(kind: ColumnKind, first_id: int, requests: Sequence[Any]) -> Any:
    """Requests of one shape as columns."""
    gtrids = [request.gtrid for request in requests]
    match kind:
        case Executes():
            return c.ExecuteColumns(
                first_id=first_id,
                count=len(requests),
                timeout_ms=requests[0].timeout_ms,
                wait=requests[0].wait,
                resources=[operation.resource for operation in requests[0].operations],
                names=[operation.name for operation in requests[0].operations],
                gtrids=gtrids if gtrids[0] else (),
                payloads=[operation.payload for request in requests for operation in request.operations],
            )
        case Prepares():
            work = [request.operations[0] for request in requests]
            return p.PrepareColumns(
                first_id=first_id,
                bqual=requests[0].bqual,
                name=work[0].name,
                timeout_ms=requests[0].timeout_ms,
                gtrids=gtrids,
                payloads=[operation.payload for operation in work],
            )
        case Commits():
            proofs = [request.proof for request in requests]
            return p.CommitColumns(first_id=first_id, bqual=requests[0].bqual, gtrids=gtrids, proofs=proofs)
    raise TypeError(f"no columns like {kind}")
