"""Transactions that go the common way, many at a time.

Theory of operation
-------------------
A ``Cohort`` is a number of transactions with the same branches and the same deadline, begun together, to which nothing
has happened but what happens to every transaction when all is well: they were asked to commit, branches voted YES in
time, the log let the commit stand, branches obeyed. Of such a transaction there is little to remember: which votes and
acknowledgements are still missing, and the proofs. So each is a *row* in a few lists instead of a machine, its branches
and the events between them; what happens to many rows at once is done to the lists. It takes a tenth of the time and of
the memory, because it touches so few objects.

A cohort decides nothing that ``GlobalTransaction`` would not. What it wants done for its rows is what the machine would
want: Prepare to all, a commit record when every branch has voted YES before the deadline, Commit to all when that
stands, an end record when all have obeyed. Whatever else may happen to a transaction (a NO, a vote that was lost, a
deadline, somebody who asks for it) is not known here: the row *leaves*. ``history`` tells what has happened to it,
event by event, and a ``GlobalTransaction`` that is fed those events is the transaction, as if it had never been a row.
So there is one protocol, and this is a way to store it; tests step cohort and machine side by side through every order
of events, and compare what both want done and where both stand.

The invariants are checked here as there: a row offers a commit record once, with every vote, before its deadline, and
takes nothing that does not belong to its stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from coordinator.protocol import events as e
from coordinator.protocol.effects import NOTHING, Effects
from coordinator.protocol.members import COMMIT, COMMITTED, YES
from coordinator.protocol.transaction import GlobalTransaction
from coordinator.protocol.values import made_once

VOTING, OFFERED, COMMITTING, ENDED, LEFT = range(5)
"""Where a row stands: votes are missing; its commit record is in the log's hands; acknowledgements are missing; all is
done; it is no row any more."""

_ended_as_told = made_once(e.BranchEnded)


class CohortViolated(Exception):
    """Something came for a row that its stage does not allow. A bug in Handfast; nothing was done about it.

    Args:
        gtrid: the row's transaction.
        problem: what came.
    """

    def __init__(self, gtrid: str, problem: str) -> None:
        super().__init__(f"{gtrid}, in a cohort: {problem}")
        self.gtrid = gtrid


class _Happened(NamedTuple):
    """What happened to some rows at one moment: votes or acknowledgements of one branch, or the decision (-1)."""

    unix_ms: int
    now_s: float
    branch: int
    voted: bool
    rows: Sequence[int]


class Cohort:
    """Rows, each a transaction; begun, and asked to commit, with their making. Prepare is to be sent to all branches.

    Args:
        gtrids: the rows' names.
        bquals: the branches of each, two or more.
        deadline_s: past this moment of the driver's monotonic clock none of them may decide commit.
        now_s: the present moment of that clock.
        unix_ms: the time, in milliseconds since 1970.
    """

    __slots__ = (
        "_answered",
        "_begun_s",
        "_begun_unix_ms",
        "_happened",
        "_missing",
        "bquals",
        "deadline_s",
        "gtrids",
        "proofs",
        "stages",
    )

    def __init__(
        self, gtrids: Sequence[str], bquals: tuple[str, ...], deadline_s: float, now_s: float, unix_ms: int
    ) -> None:
        if len(bquals) < 2 or len(set(bquals)) != len(bquals) or now_s > deadline_s:
            raise ValueError(f"no cohort of {len(gtrids)} transactions with {bquals}: two branches, and time")
        count = len(gtrids)
        self.gtrids = gtrids
        self.bquals = bquals
        self.deadline_s = deadline_s
        self.stages = bytearray(count)
        self.proofs: tuple[list[str], ...] = tuple([""] * count for _ in bquals)
        self._answered = tuple(bytearray(count) for _ in bquals)  # 0 nothing yet, 1 Prepare, 2 Commit
        self._missing = bytearray([len(bquals)]) * count
        self._begun_s = now_s
        self._begun_unix_ms = unix_ms
        self._happened: list[_Happened] = []

    def voted(self, branch: int, rows: Sequence[int], proofs: Sequence[str], now_s: float, unix_ms: int) -> list[int]:
        """A branch voted YES in these rows; not past the deadline (such rows have to leave before).

        Args:
            branch: which, as an index of ``bquals``.
            rows: where; kept, and not to be changed by the caller any more.
            proofs: the token from each vote.
            now_s: when, by the driver's monotonic clock.
            unix_ms: when, in milliseconds since 1970.

        Returns:
            The rows that have every vote now. Their commit records are to be offered to the log.

        Raises:
            CohortViolated: a row had this vote, or stands elsewhere; or it is past the deadline. Nothing was taken.
            ValueError: there is not one proof for each row. Nothing was taken.
        """
        if not self._check(rows, branch):
            return []
        if len(proofs) != len(rows):
            raise ValueError(f"{len(rows)} votes with {len(proofs)} proofs")
        known, answered = self.proofs[branch], self._answered[branch]
        stages, missing = self.stages, self._missing
        if now_s > self.deadline_s:
            raise CohortViolated(self.gtrids[rows[0]], "a vote past the deadline")
        for row in rows:
            if stages[row] != VOTING or answered[row]:
                raise CohortViolated(self.gtrids[row], f"a vote of {self.bquals[branch]} at stage {stages[row]}")
        self._happened.append(_Happened(unix_ms, now_s, branch, True, rows))
        complete = []
        for row, proof in zip(rows, proofs, strict=True):
            known[row] = proof
            answered[row] = 1
            left = missing[row] - 1
            if left:
                missing[row] = left
            else:
                missing[row] = len(self.bquals)  # from here on, acknowledgements
                stages[row] = OFFERED
                complete.append(row)
        return complete

    def decided(self, rows: Sequence[int], now_s: float, unix_ms: int) -> None:
        """The commit of these rows is durable, and stands. Commit is to be sent to all branches.

        Raises:
            CohortViolated: a row has offered none. Nothing was taken.
        """
        if not self._check(rows):
            return
        stages = self.stages
        for row in rows:
            if stages[row] != OFFERED:
                raise CohortViolated(self.gtrids[row], f"a decision at stage {stages[row]}")
        self._happened.append(_Happened(unix_ms, now_s, -1, False, rows))
        for row in rows:
            stages[row] = COMMITTING

    def acknowledged(self, branch: int, rows: Sequence[int], now_s: float, unix_ms: int) -> list[int]:
        """A branch has committed in these rows.

        Returns:
            The rows that have ended with it. Their end records are to be written.

        Raises:
            CohortViolated: a row stands elsewhere. Nothing was taken.
        """
        if not self._check(rows, branch):
            return []
        answered, stages, missing = self._answered[branch], self.stages, self._missing
        for row in rows:
            if stages[row] != COMMITTING or answered[row] != 1:
                problem = f"an acknowledgement of {self.bquals[branch]} at stage {stages[row]}"
                raise CohortViolated(self.gtrids[row], problem)
        self._happened.append(_Happened(unix_ms, now_s, branch, False, rows))
        ended = []
        for row in rows:
            answered[row] = 2
            left = missing[row] - 1
            missing[row] = left
            if not left:
                stages[row] = ENDED
                ended.append(row)
        return ended

    def _check(self, rows: Sequence[int], branch: int = 0) -> bool:
        """Whether there are any rows; each must be one, once, and the branch too: Python would count from the end."""
        if not rows:
            return False
        if len(set(rows)) != len(rows):
            raise CohortViolated(self.gtrids[rows[0]], "a row stands twice among those that came with it")
        if min(rows) < 0 or max(rows) >= len(self.stages) or not 0 <= branch < len(self.bquals):
            raise CohortViolated(self.gtrids[0], "something came for a row or a branch that is none of its")
        return True

    # -- leaving ---------------------------------------------------------------------------------------------------

    def leave(self, row: int) -> tuple[GlobalTransaction, Effects, list[tuple[int, e.Event]]]:
        """Make a transaction of a row, which is none from now on; one that has ended stays what it is.

        Returns:
            The machine; what came out of its last step, which has been or is being carried out; and its history, each
            event with its time in milliseconds since 1970.

        Raises:
            CohortViolated: it has left already, and there is a machine for it.
        """
        if self.stages[row] == LEFT:
            raise CohortViolated(self.gtrids[row], "it leaves a second time")
        history = self.history(row)
        machine = GlobalTransaction(self.gtrids[row], self.deadline_s)
        effects = NOTHING
        for _, event in history:
            effects = machine.step(event)
        if self.stages[row] != ENDED:
            self.stages[row] = LEFT
        return machine, effects, history

    def history(self, row: int) -> list[tuple[int, e.Event]]:
        """What has happened to a row: each event, oldest first, with its time in milliseconds since 1970."""
        begun = self._begun_unix_ms
        history: list[tuple[int, e.Event]] = [(begun, e.enlisted(bqual)) for bqual in self.bquals]
        history.append((begun, e.CommitRequested(self._begun_s)))
        history += [(one.unix_ms, self._event(row, one)) for one in self._happened if row in one.rows]
        return history

    def _event(self, row: int, happened: _Happened) -> e.Event:
        if happened.branch < 0:
            return e.decision_stood(COMMIT)
        bqual = self.bquals[happened.branch]
        if happened.voted:
            return e.VoteReceived(bqual, YES, happened.now_s, self.proofs[happened.branch][row])
        return _ended_as_told(bqual, COMMITTED)

    def awaits(self, row: int) -> list[str]:
        """The branches of a row that have been asked for a vote, or told to commit, and have not answered."""
        stage = self.stages[row]
        expected = 1 if stage == VOTING else 2 if stage == COMMITTING else 0
        return [bqual for bqual, answered in zip(self.bquals, self._answered, strict=True) if answered[row] < expected]
