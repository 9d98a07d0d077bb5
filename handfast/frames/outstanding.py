"""The calls that have no answer yet: single ones, and rows of columns.

A row has no object of its own. A batch keeps a byte for each row that says whether it is still open, and answers in
columns are matched to batches in runs: the ids of one batch follow each other, and most answers are to one batch.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf.message import Message

from handfast.frames.columns import ColumnKind, ColumnReplies
from handfast.frames.failure import CallFailed
from handfast.frames.service import Method

OnReply = Callable[[Message | CallFailed], None]
"""Told the answer, exactly once, on the loop's thread."""


class Call:
    """One call that has no answer yet."""

    __slots__ = ("again", "due_s", "id", "method", "on_reply", "request", "size", "task", "timeout_s", "written")

    def __init__(self, id: int, method: Method, request: Message, on_reply: OnReply, timeout_s: float | None) -> None:
        self.id = id
        self.method = method
        self.request = request
        self.size = request.ByteSize()
        self.on_reply = on_reply
        self.timeout_s = timeout_s
        self.due_s = math.inf
        self.task: asyncio.Task[None] | None = None
        self.written = False
        self.again = False


class Batch:
    """Calls that are made as columns.

    Args:
        kind: their kind.
        method: what each of them calls.
        columns: the columns, whose first id is set.
        count: how many rows they have.
        size: how many bytes.
        replies: told the answers.
        timeout_s: how long to wait for these, in seconds.
    """

    __slots__ = (
        "columns",
        "count",
        "due_s",
        "first_id",
        "kind",
        "left",
        "method",
        "open",
        "replies",
        "size",
        "timeout_s",
        "written",
    )

    def __init__(
        self,
        kind: ColumnKind,
        method: Method,
        columns: Any,
        count: int,
        size: int,
        replies: ColumnReplies,
        timeout_s: float,
    ) -> None:
        self.kind = kind
        self.method = method
        self.columns = columns
        self.first_id: int = columns.first_id
        self.count = count
        self.size = size
        self.replies = replies
        self.timeout_s = timeout_s
        self.due_s = math.inf
        self.written = False
        self.open = bytearray(b"\1") * count
        self.left = count

    def close(self, ids: Sequence[int], start: int) -> Sequence[int]:
        """Take rows off the books that are answered together.

        Args:
            ids: of calls.
            start: where in ``ids`` to begin.

        Returns:
            The rows of as many ids as are, without a gap, open calls of this batch; none when the first is not.
        """
        count = len(ids) - start
        row = ids[start] - self.first_id
        if count <= self.left and ids[-1] - ids[start] == count - 1 and self.open[row : row + count] == b"\1" * count:
            run = range(ids[start], ids[start] + count)
            if list(ids[start:]) == list(run):  # one after another, as a peer answers that answers at once
                self.open[row : row + count] = bytes(count)
                self.left -= count
                return range(row, row + count)
        rows = []
        for place in range(start, len(ids)):
            row = ids[place] - self.first_id
            if not 0 <= row < self.count or not self.open[row]:
                break
            self.open[row] = 0
            rows.append(row)
        self.left -= len(rows)
        return rows

    def singled_out(self) -> list[Call]:
        """The rows that are still open as calls of their own; the batch has none after that."""
        calls = []
        for row in range(self.count):
            if self.open[row]:
                request = self.kind.request_of(self.columns, row)
                call = Call(self.first_id + row, self.method, request, _single(self.replies, row), self.timeout_s)
                call.due_s, call.written = self.due_s, self.written
                calls.append(call)
        self.open = bytearray(self.count)
        self.left = 0
        return calls


def _single(replies: ColumnReplies, row: int) -> OnReply:
    return lambda reply: replies.single(row, reply)


class Batches:
    """The batches of a stream that have open rows."""

    def __init__(self) -> None:
        self._first_ids: list[int] = []  # in order, for ids are given in order
        self.by_first_id: dict[int, Batch] = {}
        """To be looked at only."""

    def __len__(self) -> int:
        return len(self._first_ids)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.by_first_id.values())

    def add(self, batch: Batch) -> None:
        """Take it on the books; its ids are higher than all before."""
        self._first_ids.append(batch.first_id)
        self.by_first_id[batch.first_id] = batch

    def holding(self, call_id: int) -> Batch | None:
        """The batch to which an id may belong."""
        place = bisect_right(self._first_ids, call_id) - 1
        return self.by_first_id[self._first_ids[place]] if place >= 0 else None

    def drop(self, batch: Batch) -> None:
        """Take it off the books."""
        if self.by_first_id.pop(batch.first_id, None) is not None:
            del self._first_ids[bisect_right(self._first_ids, batch.first_id) - 1]

    def due_s(self) -> float:
        """When the earliest is due."""
        return min((batch.due_s for batch in self), default=math.inf)

    def singled_out(self, due_s: float = math.inf) -> list[Call]:
        """All open rows as calls of their own, or those of batches that are due by then; the batches are dropped."""
        calls = []
        for batch in [batch for batch in self if batch.due_s <= due_s]:
            calls += batch.singled_out()
            self.drop(batch)
        return calls
