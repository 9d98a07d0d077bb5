"""A cohort, and beside it one ``GlobalTransaction`` for each of its rows, stepped by single events.

Whatever happens is told to both, and both are compared: what they want done and where they stand. A row that leaves the
cohort has to become the machine beside it, field by field, with the history that the machine was fed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from itertools import combinations
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from coordinator.protocol import events as e
from coordinator.protocol.branch import Branch
from coordinator.protocol.cohort import COMMITTING, ENDED, LEFT, OFFERED, VOTING, Cohort
from coordinator.protocol.effects import NOTHING, CommitRecord, Effects, EndRecord, SendCommit, SendPrepare
from coordinator.protocol.states import Decision, Outcome, TransactionState, Vote
from coordinator.protocol.transaction import GlobalTransaction
from tests.unit.protocol.machines import DEADLINE_S, IN_TIME_S

BEGUN_UNIX_MS = 1_000
STAGES = {
    (TransactionState.PREPARING, False): VOTING,
    (TransactionState.PREPARING, True): OFFERED,
    (TransactionState.COMMITTING, True): COMMITTING,
    (TransactionState.COMMITTED, True): ENDED,
}
"""The machine's state, and whether it has offered a record → the stage of its row."""


_fields_of = attrgetter(*[field.name for field in fields(Branch)])


class Bulk(NamedTuple):
    """One call of a cohort: what happened to some of its rows at one moment.

    Args:
        what: a vote, a decision or an acknowledgement.
        branch: whose, as an index; -1 for a decision.
        rows: where.
    """

    what: Literal["voted", "decided", "acknowledged"]
    branch: int
    rows: tuple[int, ...]


def proof_of(branch: int, row: int) -> str:
    """The token from a branch's vote in a row; no other vote has it."""
    return f"xid {row} of {branch}"


def tell(cohort: Cohort, bulk: Bulk, now_s: float, unix_ms: int) -> list[int]:
    """Tell a cohort what happened to some of its rows; the rows that it returns."""
    rows = list(bulk.rows)
    if bulk.what == "voted":
        return cohort.voted(bulk.branch, rows, [proof_of(bulk.branch, row) for row in rows], now_s, unix_ms)
    if bulk.what == "acknowledged":
        return cohort.acknowledged(bulk.branch, rows, now_s, unix_ms)
    cohort.decided(rows, now_s, unix_ms)
    return []


def told(machine: GlobalTransaction) -> dict[str, Any]:
    """Every field of a machine; its branches in their order, each with every field."""
    fields = {slot: getattr(machine, slot) for slot in GlobalTransaction.__slots__}
    return {**fields, "branches": list(machine.branches.items())}


def parts(cohort: Cohort) -> dict[str, Any]:
    """Every field of a cohort, copied: nothing in it changes when the cohort does."""
    return {slot: _copied(getattr(cohort, slot)) for slot in Cohort.__slots__}


def copied(cohort: Cohort) -> Cohort:
    """A cohort that goes its own way from here."""
    other = Cohort.__new__(Cohort)
    for slot, part in parts(cohort).items():
        setattr(other, slot, part)
    return other


def _copied(part: Any) -> Any:
    if isinstance(part, tuple):
        return tuple(map(_copied, part))
    return part[:] if isinstance(part, (list, bytearray)) else part


class SideBySide:
    """A cohort and its machines.

    Args:
        rows: how many transactions.
        bquals: the branches of each.
    """

    def __init__(self, rows: int, bquals: tuple[str, ...]) -> None:
        self.bquals = bquals
        self.now_s = IN_TIME_S
        self.unix_ms = BEGUN_UNIX_MS
        gtrids = [f"t{row}" for row in range(rows)]
        self.cohort = Cohort(gtrids, bquals, DEADLINE_S, self.now_s, self.unix_ms)
        self.machines = [GlobalTransaction(gtrid, DEADLINE_S) for gtrid in gtrids]
        self.fed: list[tuple[tuple[int, e.Event], ...]] = [() for _ in gtrids]
        self.last = [NOTHING for _ in gtrids]
        self.left: set[int] = set()
        for row in range(rows):
            for bqual in bquals:
                self._feed(row, e.Enlisted(bqual))
            asked = self._feed(row, e.CommitRequested(self.now_s))
            assert asked == Effects(send=tuple(SendPrepare(bqual) for bqual in bquals))

    @property
    def rows(self) -> range:
        """All of them, also those that have left."""
        return range(len(self.machines))

    def copy(self) -> SideBySide:
        """The same, to go its own way from here."""
        other = SideBySide.__new__(SideBySide)
        other.__dict__.update(self.__dict__)
        other.cohort = copied(self.cohort)
        other.machines, other.fed, other.last = self.machines[:], self.fed[:], self.last[:]
        other.left = set(self.left)
        return other

    # -- what happens ----------------------------------------------------------------------------------------------

    def happens(self, bulk: Bulk) -> None:
        """Tell both of it, and compare what they want done and where they stand."""
        self.now_s += 0.25
        self.unix_ms += 1
        returned = tell(self.cohort, bulk, self.now_s, self.unix_ms)
        for row in bulk.rows:
            effects = self._feed(row, self._event(bulk, row))
            assert self._wants(bulk, row, returned) == effects
        assert returned == [row for row in bulk.rows if row in returned]
        self.compare()

    def _event(self, bulk: Bulk, row: int) -> e.Event:
        if bulk.what == "voted":
            return e.VoteReceived(self.bquals[bulk.branch], Vote.YES, self.now_s, proof_of(bulk.branch, row))
        if bulk.what == "acknowledged":
            return e.BranchEnded(self.bquals[bulk.branch], Outcome.COMMITTED)
        return e.DecisionStood(Decision.COMMIT)

    def _wants(self, bulk: Bulk, row: int, returned: list[int]) -> Effects:
        """What the cohort wants done for a row, in the machine's words."""
        if row not in returned:
            return NOTHING
        if bulk.what == "acknowledged":
            return Effects(end=EndRecord(Outcome.COMMITTED, ""))
        proofs = [proofs[row] for proofs in self.cohort.proofs]
        branches = tuple(zip(self.bquals, proofs, strict=True))
        return Effects(force=CommitRecord(branches), send_after_force=tuple(SendCommit(*branch) for branch in branches))

    def _feed(self, row: int, event: e.Event) -> Effects:
        self.fed[row] = (*self.fed[row], (self.unix_ms, event))
        self.machines[row] = copied_machine(self.machines[row])  # the one before may be another copy's
        self.last[row] = self.machines[row].step(event)
        return self.last[row]

    def leaves(self, row: int) -> GlobalTransaction:
        """A row leaves; returns the machine that it is from now on."""
        machine = self._leaves(self.cohort, row)
        if self.cohort.stages[row] == LEFT:
            self.left.add(row)
        self.compare()
        return machine

    def _leaves(self, cohort: Cohort, row: int) -> GlobalTransaction:
        """It must be the machine beside it, and no other row may notice."""
        expected = parts(cohort)
        machine, effects, history = cohort.leave(row)
        assert told(machine) == told(self.machines[row])
        assert effects == self.last[row]
        assert tuple(history) == self.fed[row]
        expected["stages"][row] = ENDED if self.stage(row) == ENDED else LEFT
        assert parts(cohort) == expected
        return machine

    # -- where both stand ------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Both must agree on each row that is still one."""
        for row in self.rows:
            if row in self.left:
                assert (self.cohort.stages[row], self.cohort.awaits(row)) == (LEFT, [])
                continue
            machine = self.machines[row]
            assert self.cohort.stages[row] == STAGES[machine.state, machine.offered]
            assert self.cohort.awaits(row) == awaited(machine)
            assert [proofs[row] for proofs in self.cohort.proofs] == [one.proof for one in machine.branches.values()]

    def compare_leaving(self) -> None:
        """Each row could leave now, and would be the machine beside it; here all of them stay."""
        for row in self.rows:
            if row not in self.left:
                self._leaves(copied(self.cohort), row)

    # -- what can happen -------------------------------------------------------------------------------------------

    def ready(self) -> Iterator[Bulk]:
        """All that can happen next, each as one bulk with as many rows as there are for it."""
        there = [row for row in self.rows if row not in self.left]
        for branch, bqual in enumerate(self.bquals):
            yield Bulk("voted", branch, tuple(row for row in there if self._awaits(row, VOTING, bqual)))
            yield Bulk("acknowledged", branch, tuple(row for row in there if self._awaits(row, COMMITTING, bqual)))
        yield Bulk("decided", -1, tuple(row for row in there if self.stage(row) == OFFERED))

    def stage(self, row: int) -> int:
        """Where the machine beside a row stands, in the cohort's words; not what the cohort says."""
        return STAGES[self.machines[row].state, self.machines[row].offered]

    def _awaits(self, row: int, stage: int, bqual: str) -> bool:
        return self.stage(row) == stage and bqual in awaited(self.machines[row])

    def groupings(self) -> Iterator[Bulk]:
        """All that can happen next, in all ways to put rows into one bulk."""
        for whole in self.ready():
            for size in range(1, len(whole.rows) + 1):
                for rows in combinations(whole.rows, size):
                    yield whole._replace(rows=rows)


def awaited(machine: GlobalTransaction) -> list[str]:
    """The branches from which a machine awaits an answer."""
    if machine.state is TransactionState.PREPARING:
        return [branch.bqual for branch in machine.branches.values() if branch.vote_awaited]
    return [branch.bqual for branch in machine.pending] if machine.state is TransactionState.COMMITTING else []


def copied_machine(machine: GlobalTransaction) -> GlobalTransaction:
    """A machine that goes its own way from here."""
    other = GlobalTransaction(machine.gtrid, machine.deadline_s)
    for slot in GlobalTransaction.__slots__:
        setattr(other, slot, getattr(machine, slot))
    other.branches = {bqual: Branch(*_fields_of(branch)) for bqual, branch in machine.branches.items()}
    return other
