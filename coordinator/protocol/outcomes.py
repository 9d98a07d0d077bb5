"""How branches ended, named by the decision they should have obeyed, and what that makes of the whole.

The names are X/Open XA's heuristic results. They claim no more than is known: *mixed* needs a branch that committed and
one that rolled back, and where nobody can tell how a branch ended, the whole is a *hazard*.
"""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.protocol.states import Decision, Outcome

_MEASURED = {
    (Decision.COMMIT, Outcome.ABORTED): Outcome.HEURISTIC_ROLLBACK,
    (Decision.ABORT, Outcome.COMMITTED): Outcome.HEURISTIC_COMMIT,
    # Measured against what an operator told it, a branch that obeyed the decision before is the odd one out.
    (Decision.COMMIT, Outcome.HEURISTIC_COMMIT): Outcome.COMMITTED,
    (Decision.ABORT, Outcome.HEURISTIC_ROLLBACK): Outcome.ABORTED,
}
_COMMITS = frozenset({Outcome.COMMITTED, Outcome.HEURISTIC_COMMIT, Outcome.HEURISTIC_MIXED})
_ROLLBACKS = frozenset({Outcome.ABORTED, Outcome.HEURISTIC_ROLLBACK, Outcome.HEURISTIC_MIXED})


def measured(decision: Decision, said: Outcome) -> Outcome:
    """Name a branch's end by the decision that stands, whatever it was told last.

    Args:
        decision: the decision that stands.
        said: how the participant says the branch ended.
    """
    return _MEASURED.get((decision, said), said)


def summed_up(decision: Decision, ends: Iterable[Outcome | None]) -> Outcome:
    """Name the end of the whole transaction.

    Args:
        decision: the decision that stands.
        ends: how each branch ended that had something to commit or roll back; read-only ones had not.
    """
    known = set(ends)
    committed, rolled_back = not known.isdisjoint(_COMMITS), not known.isdisjoint(_ROLLBACKS)
    if committed and rolled_back:
        return Outcome.HEURISTIC_MIXED
    if Outcome.HEURISTIC_HAZARD in known:
        return Outcome.HEURISTIC_HAZARD
    if decision is Decision.COMMIT:
        return Outcome.HEURISTIC_ROLLBACK if rolled_back else Outcome.COMMITTED
    return Outcome.HEURISTIC_COMMIT if committed else Outcome.ABORTED
