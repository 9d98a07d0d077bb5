"""Execute calls that come as columns, and their answers.

What ``Dispatch`` does for single calls, for many rows at once. Where a row's answer is nothing but that it has
committed, it goes back in columns; any other goes back by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.rpc import codec
from coordinator.runtime.row_requests import ExecuteRows, RowRequests
from coordinator.runtime.running import Running
from handfast.catalog import HandfastFault
from handfast.frames import ColumnsReply
from handfast.v1 import coordinator_pb2 as c


def execute_columns(
    requests: RowRequests, columns: c.ExecuteColumns, start: int, stop: int, reply: ColumnsReply, client: str
) -> bool:
    """Run the transactions of these rows; False when they must be asked for one by one.

    Args:
        requests: where they go.
        columns: well-formed.
        start: the first of the rows.
        stop: the one after the last.
        reply: the way to answer.
        client: who asks; empty when nobody had to say.
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
    return requests.execute(rows, _RowsAnswer(reply, columns.first_id + start, width), client)


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
