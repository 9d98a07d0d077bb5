"""Columns: many calls of one kind in a frame, spelled once for all of them.

A thousand calls of one shape are a thousand messages to make, to parse and to look at, and almost all that is in them
is the same. As columns they are a handful of lists. What they mean is not changed by it: each row is a call with an id
of its own, answered once, in columns or by a reply of its own. So whoever doesn't want them as columns has them as
calls: the serving side for a dispatch that takes calls only, the calling side when rows must travel by themselves.

Columns travel over frame connections alone. Both ends of those are ours, and of one version of the contract.

A kind of columns is described here once for both sides: how a row becomes a request, how an answer becomes a row, and
what is wrong with columns from strangers. The check comes before any row is counted: what says it has four thousand
million rows, and has none, is no columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames.failure import CallFailed
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t

COLUMNS_MIN = 4
"""Fewer calls of one shape are not worth gathering into columns."""

CELLS_MAX = 4_000
"""How many texts columns hold at most, all of them together, so that no peer takes a frame for an attack
(``reading.MESSAGES_MAX``)."""

ROWS_MAX = 4_096
"""How many rows a frame's columns have at most, all of them together. A row takes as little as two bytes, and is
answered all the same."""

ID_MAX = 2**64 - 1


class ColumnReplies(Protocol):
    """Told what became of each row, exactly once, on the loop's thread, never before ``call_columns`` returns."""

    def columns(self, rows: Sequence[int], answer: Message, start: int) -> None:
        """Rows were answered in columns.

        Args:
            rows: which.
            answer: the answers; ``rows[i]`` is answered by its row ``start + i``.
            start: where they begin.
        """

    def single(self, row: int, reply: Message | CallFailed) -> None:
        """One row was answered by itself, or failed.

        Args:
            row: which.
            reply: as a single call would be told it.
        """


class ColumnsReply(Protocol):
    """The way to answer rows; each exactly once, on the loop's thread."""

    def columns(self, answer: Message) -> None:
        """Answer many rows.

        Args:
            answer: columns whose ids are owed. Must not be changed after this.

        Raises:
            RuntimeError: an id is not owed, or there twice.
            TypeError: the service has no such columns.
            ValueError: they are not well-formed.
        """

    def single(self, call_id: int, answer: Message | HandfastFault) -> None:
        """Answer one row, as a single call is answered.

        Args:
            call_id: the row's id.
            answer: the response, or why there is none.

        Raises:
            RuntimeError: the id is not owed.
            TypeError: the service has no such response.
        """


TakeColumns = Callable[[Message, int, int, ColumnsReply], bool]
"""Takes the rows of columns from one up to another, which is not included; must not block. False: it takes none of
them, and they go to the dispatch as ordinary requests."""


class ColumnKind(ABC):
    """One kind of columns and of their answers.

    Args:
        calls: the type of the columns.
        field: where they stand in a frame.
        request: what each row is.
        answers: the type of the answers' columns.
        answer_field: where those stand in a frame.
        response: what each of their rows is.
    """

    def __init__(
        self,
        calls: type[Message],
        field: str,
        request: type[Message],
        answers: type[Message],
        answer_field: str,
        response: type[Message],
    ) -> None:
        self.calls = calls
        self.field = field
        self.request = request
        self.answers = answers
        self.answer_field = answer_field
        self.response = response

    def count(self, columns: Any) -> int:
        """How many rows; only of columns that have no ``problem``."""
        return len(columns.gtrids)

    def problem(self, columns: Any) -> str:
        """What is wrong with columns of calls; empty when nothing is."""
        count = self.count(columns)
        if not count:
            return "it has no rows"
        if columns.first_id + count - 1 > ID_MAX:
            return f"the ids of {count} rows from {columns.first_id} on are more than 64 bits hold"
        return self._mismatch(columns, count)

    @abstractmethod
    def _mismatch(self, columns: Any, count: int) -> str:
        """Which of the columns is too long or too short, in words."""

    @abstractmethod
    def request_of(self, columns: Any, row: int) -> Message:
        """A row as an ordinary request."""

    @abstractmethod
    def answer_problem(self, answer: Any) -> str:
        """What is wrong with columns of answers; empty when nothing is."""

    @abstractmethod
    def responses_in(self, answer: Any) -> Callable[[int], Message]:
        """What gives each row of the answers as an ordinary response."""

    def response_of(self, answer: Any, row: int) -> Message:
        """One row of the answers as an ordinary response; for many, ``responses_in`` takes less."""
        return self.responses_in(answer)(row)

    @abstractmethod
    def answer_shape(self, response: Any) -> Hashable:
        """What responses must share to stand in the same columns; None when it has to travel by itself."""

    @abstractmethod
    def answer_of(self, ids: Sequence[int], responses: Sequence[Any]) -> Message:
        """Responses of one shape as columns."""


class GatheredKind(ColumnKind):
    """A kind that also single calls become, when enough of them wait together."""

    @abstractmethod
    def taken_apart(self, request: Any) -> tuple[Hashable, Any]:
        """What requests must share to stand in the same columns, and the rest: a row."""

    @abstractmethod
    def cells(self, shape: Any) -> int:
        """How many texts a row of this shape takes; 0 when requests like that travel by themselves."""

    @abstractmethod
    def columns_of(self, first_id: int, shape: Any, rows: Sequence[Any]) -> Message:
        """Rows of one shape as columns."""


def _unequal(**lengths: int) -> str:
    """What to say of columns whose lengths differ; empty when they don't."""
    if len(set(lengths.values())) == 1:
        return ""
    return "it has " + " and ".join(f"{length} {name.replace('_', ' ')}" for name, length in lengths.items())


_ExecuteShape = tuple[int, "c.Wait.ValueType", bool, tuple[tuple[str, str], ...]]
"""Timeout, wait, whether it leaves the gtrid to the coordinator, and where each operation does what."""

_ExecuteRow = tuple[str, list[bytes]]
"""Gtrid and payloads."""


class Executes(GatheredKind):
    """``ExecuteColumns``, answered by ``CommittedColumns``."""

    def __init__(self) -> None:
        super().__init__(
            c.ExecuteColumns, "executes", c.ExecuteRequest, c.CommittedColumns, "committed", c.ExecuteResponse
        )

    def count(self, columns: c.ExecuteColumns) -> int:
        """See ColumnKind."""
        return columns.count

    def _mismatch(self, columns: c.ExecuteColumns, count: int) -> str:
        each = len(columns.resources)
        if not each:
            return "it names no operations"
        if len(columns.names) != each:
            return _unequal(resources=each, names=len(columns.names))
        if columns.gtrids and len(columns.gtrids) != count:
            return _unequal(rows=count, gtrids=len(columns.gtrids))
        if len(columns.payloads) != count * each:
            return f"it has {count} rows of {each} operations and {len(columns.payloads)} payloads"
        return ""

    def request_of(self, columns: c.ExecuteColumns, row: int) -> c.ExecuteRequest:
        """See ColumnKind."""
        payloads = columns.payloads[row * len(columns.resources) : (row + 1) * len(columns.resources)]
        return c.ExecuteRequest(
            gtrid=columns.gtrids[row] if columns.gtrids else "",
            timeout_ms=columns.timeout_ms,
            operations=[
                t.Operation(resource=resource, name=name, payload=payload)
                for resource, name, payload in zip(columns.resources, columns.names, payloads, strict=True)
            ],
            wait=columns.wait,
        )

    def answer_problem(self, answer: c.CommittedColumns) -> str:
        """See ColumnKind."""
        count, results = len(answer.ids), len(answer.results)
        if count * answer.results_each != results:
            return f"it has {count} ids of {answer.results_each} results and {results} results"
        return "" if len(answer.gtrids) == count else _unequal(ids=count, gtrids=len(answer.gtrids))

    def responses_in(self, answer: c.CommittedColumns) -> Callable[[int], c.ExecuteResponse]:
        """See ColumnKind."""
        gtrids, results, each = answer.gtrids[:], answer.results[:], answer.results_each

        def response(row: int) -> c.ExecuteResponse:
            said = c.ExecuteResponse()  # filled in like this it takes half the time
            said.gtrid, said.outcome = gtrids[row], t.OUTCOME_COMMITTED
            said.results.extend(results[row * each : (row + 1) * each])
            return said

        return response

    def answer_shape(self, response: c.ExecuteResponse) -> Hashable:
        """See ColumnKind."""
        if response.outcome != t.OUTCOME_COMMITTED or response.cause or response.reason or response.branches:
            return None
        return len(response.results)

    def answer_of(self, ids: Sequence[int], responses: Sequence[c.ExecuteResponse]) -> c.CommittedColumns:
        """See ColumnKind."""
        return c.CommittedColumns(
            ids=ids,
            gtrids=[response.gtrid for response in responses],
            results=[result for response in responses for result in response.results],
            results_each=len(responses[0].results),
        )

    def taken_apart(self, request: c.ExecuteRequest) -> tuple[_ExecuteShape, _ExecuteRow]:
        """See GatheredKind."""
        places, payloads = [], []
        for operation in request.operations:
            places.append((operation.resource, operation.name))
            payloads.append(operation.payload)
        gtrid = request.gtrid
        return (request.timeout_ms, request.wait, not gtrid, tuple(places)), (gtrid, payloads)

    def cells(self, shape: _ExecuteShape) -> int:
        """See GatheredKind. Only what a coordinator keeps as rows is worth it: branches of one operation each."""
        places = shape[3]
        branches = len({resource for resource, _ in places})
        return branches + 1 if branches == len(places) >= 2 else 0

    def columns_of(self, first_id: int, shape: _ExecuteShape, rows: Sequence[_ExecuteRow]) -> c.ExecuteColumns:
        """See GatheredKind."""
        timeout_ms, wait, nameless, places = shape
        return c.ExecuteColumns(
            first_id=first_id,
            count=len(rows),
            timeout_ms=timeout_ms,
            wait=wait,
            resources=[resource for resource, _ in places],
            names=[name for _, name in places],
            gtrids=() if nameless else [gtrid for gtrid, _ in rows],
            payloads=[payload for _, payloads in rows for payload in payloads],
        )


class Prepares(ColumnKind):
    """``PrepareColumns``, answered by ``YesColumns``."""

    def __init__(self) -> None:
        super().__init__(p.PrepareColumns, "prepares", p.PrepareRequest, p.YesColumns, "yes", p.PrepareResponse)

    def _mismatch(self, columns: p.PrepareColumns, count: int) -> str:
        return "" if len(columns.payloads) == count else _unequal(gtrids=count, payloads=len(columns.payloads))

    def request_of(self, columns: p.PrepareColumns, row: int) -> p.PrepareRequest:
        """See ColumnKind."""
        resource, _, _ = columns.bqual.partition(".")
        return p.PrepareRequest(
            gtrid=columns.gtrids[row],
            bqual=columns.bqual,
            operations=[t.Operation(resource=resource, name=columns.name, payload=columns.payloads[row])],
            timeout_ms=columns.timeout_ms,
        )

    def answer_problem(self, answer: p.YesColumns) -> str:
        """See ColumnKind."""
        return _unequal(ids=len(answer.ids), proofs=len(answer.proofs), results=len(answer.results))

    def responses_in(self, answer: p.YesColumns) -> Callable[[int], p.PrepareResponse]:
        """See ColumnKind."""
        proofs, results = answer.proofs[:], answer.results[:]
        return lambda row: p.PrepareResponse(vote=t.VOTE_YES, proof=proofs[row], results=[results[row]])

    def answer_shape(self, response: p.PrepareResponse) -> Hashable:
        """See ColumnKind."""
        worded = response.reason or response.reason_code
        return True if response.vote == t.VOTE_YES and len(response.results) == 1 and not worded else None

    def answer_of(self, ids: Sequence[int], responses: Sequence[p.PrepareResponse]) -> p.YesColumns:
        """See ColumnKind."""
        return p.YesColumns(
            ids=ids,
            proofs=[response.proof for response in responses],
            results=[response.results[0] for response in responses],
        )


class Commits(ColumnKind):
    """``CommitColumns``, answered by ``DoneColumns``."""

    def __init__(self) -> None:
        super().__init__(
            p.CommitColumns, "commits", p.ParticipantCommitRequest, p.DoneColumns, "done", p.ParticipantCommitResponse
        )

    def _mismatch(self, columns: p.CommitColumns, count: int) -> str:
        return "" if len(columns.proofs) == count else _unequal(gtrids=count, proofs=len(columns.proofs))

    def request_of(self, columns: p.CommitColumns, row: int) -> p.ParticipantCommitRequest:
        """See ColumnKind."""
        return p.ParticipantCommitRequest(gtrid=columns.gtrids[row], bqual=columns.bqual, proof=columns.proofs[row])

    def answer_problem(self, answer: p.DoneColumns) -> str:
        """See ColumnKind."""
        return ""

    def responses_in(self, answer: p.DoneColumns) -> Callable[[int], p.ParticipantCommitResponse]:
        """See ColumnKind."""
        return lambda row: p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)

    def answer_shape(self, response: p.ParticipantCommitResponse) -> Hashable:
        """See ColumnKind."""
        return True if response.outcome == t.OUTCOME_COMMITTED and not response.evidence else None

    def answer_of(self, ids: Sequence[int], responses: Sequence[p.ParticipantCommitResponse]) -> p.DoneColumns:
        """See ColumnKind."""
        return p.DoneColumns(ids=ids)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of columns.

    Args:
        kind: the columns' kind.
        columns: the columns.
        start: the first of the rows.
        stop: the first that is none of them.
    """

    kind: ColumnKind
    columns: Any
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def ids(self) -> range:
        """The calls' ids."""
        first_id: int = self.columns.first_id
        return range(first_id + self.start, first_id + self.stop)

    def request(self, call_id: int) -> Message:
        """The call of this id as an ordinary request."""
        return self.kind.request_of(self.columns, call_id - self.columns.first_id)


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a frame of calls, to be served in the frame's place.

    Args:
        calls: its single calls.
        columns: its rows.
    """

    calls: Sequence[Any]
    columns: Sequence[Rows] = ()
