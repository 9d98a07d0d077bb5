"""The calling side's books: which calls have no answer yet, and who is told when one comes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import Message

from handfast.frames.columns import ColumnKind
from handfast.frames.failure import CallFailed, failure_of_error, lost
from handfast.frames.outstanding import Batch, Batches, Call
from handfast.frames.service import FramedService, Method

log = logging.getLogger(__name__)


class Books:
    """Single calls by id, and batches of rows.

    Args:
        service: what the peer serves.
        peer: the peer's name for messages and logs.
    """

    def __init__(self, service: FramedService, peer: str) -> None:
        self._service = service
        self._peer = peer
        self.calls: dict[int, Call] = {}
        self.batches = Batches()
        self.last_error = ""
        """Why the last call failed; empty when that one did not."""

    def drop(self, call: Call) -> bool:
        """Take a call off the books; False when it was settled before."""
        if self.calls.pop(call.id, None) is None:
            return False
        if call.task is not None:
            call.task.cancel()
        return True

    def settle(self, call: Call, reply: Message | CallFailed) -> None:
        """Take a call off the books, and tell its caller; nothing when it was settled before."""
        if self.drop(call):
            self.tell(call, reply)

    def single_out(self, due_s: float = math.inf) -> None:
        """Make calls of their own of all open rows, or of those that are due by then."""
        for call in self.batches.singled_out(due_s):
            self.calls[call.id] = call

    # -- answers ---------------------------------------------------------------------------------------------------

    def take(self, frame: Any) -> None:
        """Settle what a frame answers. An answer to no call is to one that timed out, and whose caller was told so."""
        for reply in frame.replies:
            call = self.calls.pop(reply.id, None)
            if call is not None:
                self.tell(call, self._said(reply, call.method))
            elif self.batches:
                self._take_row(reply)
        for kind in self._service.columns:
            for answer in getattr(frame, kind.answer_field):
                self._take_columns(kind, answer)

    def _said(self, reply: Any, method: Method) -> Message | CallFailed:
        field = reply.WhichOneof("response")
        if field == method.field:
            return getattr(reply, field)  # type: ignore[no-any-return]  # the field holds the method's response
        if field == "error":
            return failure_of_error(reply.error)
        return lost(self._peer, f"it answered {method.name} with {field or 'nothing'}", written=True)

    def _take_row(self, reply: Any) -> None:
        batch = self.batches.holding(reply.id)
        if batch is not None and (rows := self._close(batch, (reply.id,), 0)):
            self._tell_row(batch, rows[0], self._said(reply, batch.method))

    def _take_columns(self, kind: ColumnKind, answer: Any) -> None:
        """Settle what columns answer: rows of batches in runs, single calls one by one."""
        ids, start = answer.ids[:], 0
        problem = kind.answer_problem(answer)
        response: Callable[[int], Message] | None = None
        while start < len(ids):
            batch = self.batches.holding(ids[start])
            rows = () if batch is None else self._close(batch, ids, start)
            if batch is not None and rows:
                self._tell_rows(batch, rows, kind, answer, start, problem)
            elif (call := self.calls.pop(ids[start], None)) is not None:
                if response is None:
                    response = kind.responses_in(answer)
                self.tell(call, self._unfit(call.method, kind, problem) or response(start))
            start += len(rows) or 1

    def _close(self, batch: Batch, ids: Sequence[int], start: int) -> Sequence[int]:
        rows = batch.close(ids, start)
        if not batch.left:
            self.batches.drop(batch)
        return rows

    def _unfit(self, method: Method, kind: ColumnKind, problem: str) -> CallFailed | None:
        """Why columns are no answer to a call of this method; None when they are."""
        if kind.response is method.response and not problem:
            return None
        said = f"it answered {method.name} with {kind.answers.DESCRIPTOR.name}"
        return lost(self._peer, f"{said}: {problem}" if problem else said, written=True)

    # -- callers ---------------------------------------------------------------------------------------------------
    # One caller's defect must not end the reader, on which all others wait.

    def tell(self, call: Call, reply: Message | CallFailed) -> None:
        """Tell the caller of a call that is off the books."""
        self.last_error = reply.message if isinstance(reply, CallFailed) else ""
        try:
            call.on_reply(reply)
        except Exception:
            log.exception("the callback of a %s to %s failed", call.method.name, self._peer)

    def _tell_row(self, batch: Batch, row: int, reply: Message | CallFailed) -> None:
        self.last_error = reply.message if isinstance(reply, CallFailed) else ""
        try:
            batch.replies.single(row, reply)
        except Exception:
            log.exception("the callback of a %s to %s failed", batch.method.name, self._peer)

    def _tell_rows(
        self, batch: Batch, rows: Sequence[int], kind: ColumnKind, answer: Message, start: int, problem: str
    ) -> None:
        if self._unfit(batch.method, kind, problem) is not None:
            for row in rows:
                self._tell_row(batch, row, self._unfit(batch.method, kind, problem) or answer)
            return
        self.last_error = ""
        try:
            batch.replies.columns(rows, answer, start)
        except Exception:
            log.exception("the callback of %d %s to %s failed", len(rows), batch.method.name, self._peer)
