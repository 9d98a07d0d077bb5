"""Many one-shot transactions asked for at once, as the rows of one request.

Each row is what ``Requests.execute`` would be asked for it. Those that can go together become a cohort. With the others
something is wrong, or special: each of them is to be asked for by itself, by the way on which single requests come, for
what is looked at on that way may be what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.protocol.values import value
from coordinator.runtime.cohorts import Cohorts
from coordinator.runtime.requests import Requests
from coordinator.runtime.running import Running
from coordinator.runtime.running_cohort import RowsAnswer, RowsWork
from handfast.catalog import HandfastFault


@value
class ExecuteRows:
    """What is asked for.

    Args:
        resources: the resource of each operation; all different.
        names: the name of each operation.
        payloads: for each row, as many as there are operations; row after row.
        gtrids: a name for each row, or none: the coordinator chooses.
        count: how many rows there are.
        timeout_ms: how long each may stay undecided; 0 means the default.
        at_decision: answer when the decision is durable rather than when it is applied.
    """

    resources: tuple[str, ...]
    names: tuple[str, ...]
    payloads: Sequence[bytes]
    gtrids: Sequence[str]
    count: int
    timeout_ms: int
    at_decision: bool


class RowRequests:
    """Takes rows.

    Args:
        requests: what the coordinator can be asked.
        cohorts: where rows go together.
    """

    def __init__(self, requests: Requests, cohorts: Cohorts) -> None:
        self._requests = requests
        self.cohorts = cohorts

    def execute(self, rows: ExecuteRows, answer: RowsAnswer, client: str = "") -> Sequence[int]:
        """Run the transactions of those rows that can go together.

        Args:
            rows: what is asked for.
            answer: told what becomes of each that is taken.
            client: who asks, where a name was not drawn from a block.

        Returns:
            The rows that are taken. Nothing is done about the others: each is to be asked for by itself.
        """
        requests = self._requests
        options, width = requests.driver.options, len(rows.resources)
        too_large = width > options.branches_max or max(map(len, rows.payloads)) > options.payload_bytes_max
        if too_large or len(set(rows.resources)) < width:
            return ()  # operations on one resource are one branch, and a row has a branch for each
        owner = requests.gtrids.client_of(rows.gtrids[0]) if rows.gtrids else client
        try:
            requests.check_room(owner, rows.count)
            bquals = tuple([requests.new_branch(resource) for resource in rows.resources])
        except HandfastFault:
            return ()
        if not self.cohorts.can_take(bquals):
            return ()
        if rows.gtrids:
            taken: Sequence[int] = requests.gtrids.claim_rows(rows.gtrids, owner)
            gtrids: Sequence[str] = [rows.gtrids[row] for row in taken]
        else:
            taken = range(rows.count)
            gtrids = requests.gtrids.next_many(rows.count)
        if not taken:
            return ()
        payloads = [rows.payloads[branch::width] for branch in range(width)]
        if len(taken) < rows.count:
            payloads = [[of_branch[row] for row in taken] for of_branch in payloads]
            answer = _Renumbered(answer, taken)
        work = RowsWork(bquals, rows.names, payloads)
        self.cohorts.begin(gtrids, work, requests.timeout_s(rows.timeout_ms), owner, rows.at_decision, answer)
        return taken


class _Renumbered:
    """Answers some rows of a request by their numbers there."""

    def __init__(self, answer: RowsAnswer, rows: Sequence[int]) -> None:
        self._answer = answer
        self._rows = rows

    def committed(self, rows: Sequence[int], gtrids: Sequence[str], results: Sequence[bytes]) -> None:
        self._answer.committed([self._rows[row] for row in rows], gtrids, results)

    def one(self, row: int, answer: Running | HandfastFault) -> None:
        self._answer.one(self._rows[row], answer)
