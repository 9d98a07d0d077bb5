"""What goes into the next frame of calls.

Calls go in the order in which they were made, up to a full frame. Over a frame connection, calls of one shape that wait
together are written as columns: whoever makes them need not know. Columns are taken after a frame's single calls; so
that no call overtakes one that was made before it, a frame with columns ends before the next call that is none of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from google.protobuf.message import Message

from handfast.frames.channels import FRAME_BYTES_MAX
from handfast.frames.columns import CELLS_MAX, COLUMNS_MIN, GatheredKind
from handfast.frames.outstanding import Batch, Call
from handfast.frames.service import FramedService


class Filler:
    """Makes frames of what waits.

    Args:
        service: whose calls they are.
        queue: what waits.
        outstanding: the single calls that have no answer yet, by id; what is not among them is left out.
        frame_messages_max: how many calls a frame carries at most; a batch is not cut for it.
        new_ids: given how many, gives the first of as many new ids.
    """

    def __init__(
        self,
        service: FramedService,
        queue: deque[Call | Batch],
        outstanding: dict[int, Call],
        frame_messages_max: int,
        new_ids: Callable[[int], int],
    ) -> None:
        self._service = service
        self._queue = queue
        self._outstanding = outstanding
        self._frame_messages_max = frame_messages_max
        self._new_ids = new_ids

    def frame(self, *, in_columns: bool) -> Message | None:
        """The next frame; None when all that waited timed out meanwhile.

        Args:
            in_columns: whether single calls may be written as columns.
        """
        frame: Any = self._service.call_frame()
        queue, gathered = self._queue, self._service.gathered if in_columns else {}
        alike: list[Call] = []  # the last calls, which may become columns
        has_columns = False
        count = size = 0
        while queue and count < self._frame_messages_max and size < FRAME_BYTES_MAX:
            call = queue[0]
            if isinstance(call, Batch):
                if call.left:
                    has_columns = call.written = True
                    getattr(frame, call.kind.field).add().CopyFrom(call.columns)
                    count += call.count
                    size += call.size
            elif call.id in self._outstanding:
                joins = type(call.request) in gathered
                if has_columns or (not joins and len(alike) >= COLUMNS_MIN):
                    break
                call.written = True
                count += 1
                size += call.size
                if joins:
                    alike.append(call)
                else:
                    if alike:
                        _write(frame, alike)
                        alike.clear()
                    _write(frame, (call,))
            queue.popleft()
        if alike:
            self._write_alike(frame, alike)
        return frame if count else None

    def _write_alike(self, frame: Any, calls: list[Call]) -> None:
        """Write calls that were made one after another, those of one shape as columns."""
        if len(calls) < COLUMNS_MIN:
            _write(frame, calls)
            return
        groups: dict[tuple[GatheredKind, Hashable], tuple[list[Call], list[Any]]] = {}
        for call in calls:
            kind = self._service.gathered[type(call.request)]
            shape, row = kind.taken_apart(call.request)
            those, rows = groups.setdefault((kind, shape), ([], []))
            those.append(call)
            rows.append(row)
        for (kind, shape), (those, rows) in groups.items():
            cells = kind.cells(shape)
            if len(those) < COLUMNS_MIN or not 0 < cells * COLUMNS_MIN <= CELLS_MAX:
                _write(frame, those)
                continue
            rows_max = CELLS_MAX // cells
            for start in range(0, len(those), rows_max):
                first_id = self._consecutive(those[start : start + rows_max])
                getattr(frame, kind.field).append(kind.columns_of(first_id, shape, rows[start : start + rows_max]))

    def _consecutive(self, calls: list[Call]) -> int:
        """Let the calls' ids follow each other, as those of rows do; returns the first."""
        first_id = calls[0].id
        if all(call.id == first_id + row for row, call in enumerate(calls)):
            return first_id
        first_id = self._new_ids(len(calls))
        for row, call in enumerate(calls):
            del self._outstanding[call.id]
            call.id = first_id + row
            self._outstanding[call.id] = call
        return first_id


def _write(frame: Any, calls: Iterable[Call]) -> None:
    for call in calls:
        getattr(frame.calls.add(id=call.id), call.method.field or "").CopyFrom(call.request)
