"""The replies of one batched stream: owed, waiting to be written, and being written.

A call that came by itself is answered by itself. One that came as a row of columns may be answered in columns, and is
whenever its answer says no more than those can: by whoever takes columns whole, and otherwise here, by gathering plain
answers as a frame is made. So a service that knows nothing of columns saves them on the way back all the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames.channels import CALL_BYTES_MAX, FRAME_BYTES_MAX
from handfast.frames.columns import ColumnKind, Rows
from handfast.frames.failure import error_of_fault
from handfast.frames.gathering import Sender
from handfast.frames.service import FramedService

Reply = Callable[[Message | HandfastFault], None]
"""Answers one call; to be called exactly once, on the loop's thread."""

Gathered = dict[tuple[ColumnKind, Hashable], tuple[list[int], list[Message]]]
"""Plain answers to rows by what they must share to stand in the same columns: their ids, and the answers."""


class Outbox:
    """The replies of one stream. It is the ``ColumnsReply`` of all columns on it.

    Args:
        service: what is served.
        context: where frames are written.
        frame_messages_max: how many replies a frame carries at most; columns are not cut for it.
    """

    def __init__(
        self, service: FramedService, context: grpc.aio.ServicerContext[Any, Any], frame_messages_max: int
    ) -> None:
        self._service = service
        self._context = context
        self._frame_messages_max = frame_messages_max
        # The kind is that of the columns in which the answer may travel, or which it is; None sends it by itself.
        self._waiting: deque[tuple[int, Message | HandfastFault, ColumnKind | None]] = deque()
        self._owed: set[int] = set()  # called, and not answered yet
        self._owed_rows: set[int] = set()  # the same of what came in columns
        self._sender = Sender(
            self._waiting,
            self._under_way,
            self._write,
            frame_messages_max,
            on_failure=self._fail,
        )
        self._last = False
        self._gone = False
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # -- calls -----------------------------------------------------------------------------------------------------

    def owe(self, call_id: int) -> Reply:
        """Take a call on the books, and give the way to answer it.

        Raises:
            HandfastFault: CALL_ID_REPEATED.
        """
        if call_id in self._owed or call_id in self._owed_rows:
            raise HandfastFault("CALL_ID_REPEATED", id=call_id)
        self._owed.add(call_id)
        return partial(self._reply, call_id)

    def owe_rows(self, rows: Rows) -> None:
        """Take the calls on the books that came as rows of columns.

        Raises:
            HandfastFault: CALL_ID_REPEATED.
        """
        ids = rows.ids
        if not self._owed_rows.isdisjoint(ids) or not self._owed.isdisjoint(ids):
            repeated = next(id for id in ids if id in self._owed_rows or id in self._owed)
            raise HandfastFault("CALL_ID_REPEATED", id=repeated)
        self._owed_rows.update(ids)

    # -- answers ---------------------------------------------------------------------------------------------------

    def _reply(self, call_id: int, answer: Message | HandfastFault) -> None:
        if self._gone:
            return  # the caller has left; it was told that its call is lost
        if call_id not in self._owed or type(answer) not in self._service.reply_fields:
            self._check(call_id, answer, self._owed)
        self._owed.discard(call_id)
        self._put(call_id, answer, None)

    def single(self, call_id: int, answer: Message | HandfastFault) -> None:
        """See ColumnsReply."""
        if self._gone:
            return
        self._check(call_id, answer, self._owed_rows)
        self._owed_rows.discard(call_id)
        self._put(call_id, answer, self._service.columns_by_response.get(type(answer)))

    def _check(self, call_id: int, answer: Message | HandfastFault, owed: set[int]) -> None:
        if call_id not in owed:
            raise RuntimeError(f"call {call_id} of {self._service.name} was answered twice")
        if type(answer) not in self._service.reply_fields and not isinstance(answer, HandfastFault):
            raise TypeError(f"{self._service.name} has no reply of type {type(answer).__name__}")

    def columns(self, answer: Message) -> None:
        """See ColumnsReply."""
        self._take_answer(self._service.kind_of(answer), answer)

    def _take_answer(self, kind: ColumnKind, answer: Any) -> None:
        if answer.DESCRIPTOR is not kind.answers.DESCRIPTOR:
            raise TypeError(f"{type(answer).__name__} answers nothing")
        if problem := kind.answer_problem(answer):
            raise ValueError(f"{type(answer).__name__} is not well-formed: {problem}")
        if self._gone:
            return
        ids = answer.ids[:]
        owed = self._owed_rows.intersection(ids)
        if len(owed) != len(ids):
            raise RuntimeError(f"{type(answer).__name__} of {self._service.name} answers a call twice, or none")
        self._owed_rows -= owed
        if answer.ByteSize() <= FRAME_BYTES_MAX:
            self._put(-1, answer, kind)
            return
        response = kind.responses_in(answer)
        for row, call_id in enumerate(ids):  # so that no frame gets larger than may be
            self._put(call_id, response(row), None)

    def fail(self, rows: Rows, fault: HandfastFault) -> None:
        """Answer with a fault those of the rows that have no answer yet."""
        for call_id in rows.ids:
            if call_id in self._owed_rows:
                self.single(call_id, fault)

    def _put(self, call_id: int, answer: Message | HandfastFault, kind: ColumnKind | None) -> None:
        self._waiting.append((call_id, answer, kind))
        if not self._sender.busy:
            self._sender.wake()

    # -- the end ---------------------------------------------------------------------------------------------------

    def no_more_calls(self) -> None:
        """Let it finish once everything owed is written."""
        self._last = True
        self._sender.on_idle = self._look_whether_finished
        self._look_whether_finished()

    def _look_whether_finished(self) -> None:
        done = self._last and not self._under_way() and not self._waiting and not self._sender.busy
        if done and not self.finished.done():
            self.finished.set_result(None)

    def _fail(self, problem: BaseException) -> None:
        if not self.finished.done():
            self.finished.set_exception(problem)

    def leave(self) -> None:
        """The stream has ended: answers that come later have nowhere to go, and those that wait go nowhere."""
        self._gone = True
        self._owed.clear()
        self._owed_rows.clear()
        self._waiting.clear()
        self.no_more_calls()

    def stop(self) -> None:
        """Write nothing more, not even what is being written."""
        self.leave()
        self._sender.stop()
        self.finished.cancel()

    # -- frames ----------------------------------------------------------------------------------------------------

    def _under_way(self) -> int:
        return len(self._owed) + len(self._owed_rows)

    def _write(self) -> Awaitable[None] | None:
        frame: Any = self._service.reply_frame()
        plain: Gathered = {}
        count = size = 0
        while self._waiting and count < self._frame_messages_max and size < FRAME_BYTES_MAX:
            call_id, answer, kind = self._waiting.popleft()
            if kind is None:
                size += _fill(frame.replies.add(id=call_id), answer, self._service)
                count += 1
            elif type(answer) is kind.answers:
                size += answer.ByteSize()
                answers: Any = getattr(frame, kind.answer_field).add()
                answers.CopyFrom(answer)
                count += len(answers.ids)
            else:
                size += self._sort(call_id, answer, kind, frame, plain)
                count += 1
        for (kind, _), (ids, answers) in plain.items():
            getattr(frame, kind.answer_field).append(kind.answer_of(ids, answers))
        return self._context.write(frame)

    def _sort(self, call_id: int, answer: Any, kind: ColumnKind, frame: Any, plain: Gathered) -> int:
        """Put a row's answer among others of its shape when it is plain, else into the frame; returns its bytes."""
        shape = kind.answer_shape(answer)
        size: int = answer.ByteSize()
        if shape is None or size > FRAME_BYTES_MAX:
            return _fill(frame.replies.add(id=call_id), answer, self._service)
        ids, answers = plain.setdefault((kind, shape), ([], []))
        ids.append(call_id)
        answers.append(answer)
        return size


def _fill(reply: Any, answer: Message | HandfastFault, service: FramedService) -> int:
    """Put the answer into its field; returns its size in bytes."""
    if not isinstance(answer, HandfastFault):
        size = answer.ByteSize()
        if size <= CALL_BYTES_MAX:
            getattr(reply, service.reply_fields[type(answer)]).CopyFrom(answer)
            return size
        # Not an error of the request: the work is done. INTERNAL tells the caller to ask what became of it.
        problem = f"the {type(answer).__name__} has {size} bytes, more than the {CALL_BYTES_MAX} that a reply carries"
        answer = HandfastFault("INTERNAL", problem=problem)
    reply.error.CopyFrom(error_of_fault(answer))
    return int(reply.error.ByteSize())
