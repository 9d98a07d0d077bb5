"""Execute calls that come as columns, and their answers.

What ``Dispatch`` does for single calls, for many rows at once. Where a row's answer is nothing but that it has
committed, it goes back in columns; any other goes back by itself. Rows that can't go together with the others become
single calls, and go the way of those.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from coordinator.rpc import codec
from coordinator.runtime.row_requests import ExecuteRows, RowRequests
from coordinator.runtime.running import Running
from handfast.catalog import HandfastFault
from handfast.frames import COORDINATOR, ColumnsReply, Dispatch
from handfast.v1 import coordinator_pb2 as c

logger = logging.getLogger(__name__)


def execute_columns(
    requests: RowRequests,
    columns: c.ExecuteColumns,
    start: int,
    stop: int,
    reply: ColumnsReply,
    client: str,
    dispatch: Dispatch,
) -> bool:
    """Run the transactions of these rows; False when they must be asked for one by one.

    Args:
        requests: where they go.
        columns: well-formed.
        start: the first of the rows.
        stop: the one after the last.
        reply: the way to answer.
        client: who asks; empty when nobody had to say.
        dispatch: takes single calls.
    """
    width = len(columns.resources)
    rows = ExecuteRows(
        resources=tuple(columns.resources),
        names=tuple(columns.names),
        payloads=columns.payloads[start * width : stop * width],
        gtrids=columns.gtrids[start:stop],
        count=stop - start,
        timeout_ms=columns.timeout_ms,
        at_decision=columns.wait == c.WAIT_DECIDED,
    )
    taken = requests.execute(rows, _RowsAnswer(reply, columns.first_id + start, width), client)
    if taken and len(taken) < rows.count:
        for row in sorted(set(range(rows.count)).difference(taken)):
            _call(columns, start + row, reply, dispatch)
    return bool(taken)


def _call(columns: c.ExecuteColumns, row: int, reply: ColumnsReply, dispatch: Dispatch) -> None:
    """Handle a row as a single call. Whatever it raises is its answer: the other rows are under way."""
    call_id = columns.first_id + row
    try:
        dispatch(COORDINATOR.kind_of(columns).request_of(columns, row), partial(reply.single, call_id))
    except HandfastFault as fault:
        reply.single(call_id, fault)
    except Exception as problem:
        logger.exception("a row of ExecuteColumns failed")
        reply.single(call_id, HandfastFault("INTERNAL", problem=f"{type(problem).__name__}: {problem}"))


class _RowsAnswer:
    """Spells answers; see ``RowsAnswer``."""

    __slots__ = ("_first_id", "_reply", "_width")

    def __init__(self, reply: ColumnsReply, first_id: int, width: int) -> None:
        self._reply = reply
        self._first_id = first_id
        self._width = width

    def committed(self, rows: Sequence[int], gtrids: Sequence[str], results: Sequence[bytes]) -> None:
        first_id = self._first_id
        columns = c.CommittedColumns(results_each=self._width)
        columns.ids.extend([first_id + row for row in rows])
        columns.gtrids.extend(gtrids)
        columns.results.extend(results)
        self._reply.columns(columns)

    def one(self, row: int, answer: Running | HandfastFault) -> None:
        self._reply.single(self._first_id + row, codec.answered(codec.execute_response, answer))
