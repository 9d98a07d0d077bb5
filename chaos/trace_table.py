"""The transition tables, as docs/states.md publishes them; the outside checker replays traces against these.

They are written out here a second time on purpose: a checker that asks the product what is right finds nothing wrong.
A test compares them with the page.
"""

from __future__ import annotations

COORDINATOR = """
| event | ACTIVE | PREPARING | COMMITTING | ABORTING | COMMITTED | ABORTED | FORGOTTEN |
| --- | --- | --- | --- | --- | --- | --- | --- |
| `Enlisted` | ACTIVE | · | · | · | · | · | · |
| `CommitRequested` | PREPARING, COMMITTED, ABORTING, ABORTED | PREPARING | COMMITTING | ABORTING | COMMITTED | ABORTED | · |
| `RollbackRequested` | ABORTING, ABORTED | ABORTING, PREPARING | COMMITTING | ABORTING | COMMITTED | ABORTED | · |
| `VoteReceived` | · | PREPARING, ABORTING, ABORTED, COMMITTED | · | ABORTING, ABORTED | · | · | · |
| `VoteLost` | · | ABORTING | · | ABORTING, ABORTED | · | · | · |
| `DecisionStood` | · | COMMITTING, ABORTING | · | · | · | · | · |
| `DecisionRefused` | · | ABORTING | · | · | · | · | · |
| `OnePhaseAnswered` | · | COMMITTED, ABORTED | · | · | · | · | · |
| `OnePhaseUnsupported` | · | PREPARING | · | · | · | · | · |
| `BranchEnded` | · | · | COMMITTING, COMMITTED | ABORTING, ABORTED | COMMITTED | ABORTED | · |
| `DeliveryFailed` | · | PREPARING | COMMITTING | ABORTING, ABORTED | COMMITTED | ABORTED | · |
| `RetryDue` | · | PREPARING | COMMITTING | ABORTING | COMMITTED | ABORTED | · |
| `DeadlinePassed` | ABORTING, ABORTED | ABORTING, PREPARING | COMMITTING | ABORTING | COMMITTED | ABORTED | · |
| `ResolvedAgainstDecision` | · | · | COMMITTING | ABORTING | · | · | · |
| `Forgotten` | · | · | · | · | FORGOTTEN | FORGOTTEN | · |
"""  # noqa: E501 - as it is published

PARTICIPANT = """
| event | ACTIVE | PREPARING | IN_DOUBT | COMMITTED | ABORTED |
| --- | --- | --- | --- | --- | --- |
| `WORK_FAILED` | ABORTED | · | · | · | · |
| `DEADLINE_PASSED` | ABORTED | PREPARING | · | · | · |
| `PREPARE_RECEIVED` | PREPARING | · | · | · | · |
| `ONE_PHASE_RECEIVED` | PREPARING | · | · | · | · |
| `ROLLBACK_RECEIVED` | ABORTED | PREPARING | · | · | · |
| `PREPARED` | · | IN_DOUBT | IN_DOUBT | · | · |
| `FOUND_READ_ONLY` | · | COMMITTED | · | · | · |
| `PREPARE_FAILED` | · | ABORTED | ABORTED | · | · |
| `ANSWER_LOST` | · | IN_DOUBT | · | · | · |
| `ENDED_COMMITTED` | · | COMMITTED | COMMITTED | · | · |
| `ENDED_ABORTED` | · | · | ABORTED | · | · |
| `ENDED_UNPROVED` | · | ABORTED | ABORTED | · | · |
"""


def rows(table: str) -> dict[tuple[str, str], frozenset[str]]:
    """A published table by (event, state before): the states that may follow; none for a pair that can't happen."""
    head, _, *lines = (_cells(line) for line in table.strip().splitlines())
    return {
        (event.strip("`"), before): frozenset(after.strip() for after in cell.split(",")) - {"·"}
        for event, *cells in lines
        for before, cell in zip(head[1:], cells, strict=True)
    }


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
