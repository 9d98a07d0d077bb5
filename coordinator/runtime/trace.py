"""The coordinator's trace: each step of each transaction, as the machine took it (see handfast.trace, docs/trace.md).

The driver tells of a step after the machine has taken it and before anything is done about it. So a line that is in the
file says what the machine decided, and whatever it made other processes do stands behind it in a file that they share.
"""

from __future__ import annotations

from coordinator.protocol.effects import Effects
from coordinator.protocol.events import Event
from coordinator.protocol.states import Decision, TransactionState
from coordinator.protocol.transaction import FINAL_STATES, GlobalTransaction
from coordinator.runtime.running import Running
from handfast.trace import Trace, told


class ProtocolTrace:
    """Writes what the driver's transactions do.

    Args:
        trace: where to.
        coordinator_id: this coordinator.
        epoch: its present life.
    """

    def __init__(self, trace: Trace, coordinator_id: str, epoch: int) -> None:
        self._trace = trace
        self._self = (coordinator_id, epoch)
        self._branches: dict[str, dict[str, str]] = {}
        """Where the branches of each open transaction stood after its last step, by gtrid and bqual."""

    def started(self) -> None:
        """A life begins: the log is open, and what it holds is going to be taken up."""
        self._trace.note("Started", coordinator=self._self)

    def stopped(self) -> None:
        """A life ends in good order."""
        self._trace.note("Stopped", coordinator=self._self)

    def stepped(self, running: Running, event: Event, before: TransactionState, effects: Effects) -> None:
        """A machine has taken an event.

        Args:
            running: its transaction.
            event: what it took.
            before: the state it was in.
            effects: what came out.
        """
        machine = running.transaction
        if before is TransactionState.ACTIVE and machine.gtrid not in self._branches:
            self._begun(running)
        self._trace.note(
            type(event).__name__,
            machine.gtrid,
            branch=getattr(event, "bqual", ""),
            coordinator=self._self,
            fields=event,
            before=before,
            after=machine.state,
            branches=self._moved(machine, getattr(event, "bqual", ""), late=before in FINAL_STATES),
            effects=told_effects(effects) or None,
            outcome=machine.outcome,
        )
        if machine.state in FINAL_STATES:
            self._branches.pop(machine.gtrid, None)

    def recovered(self, running: Running, effects: Effects) -> None:
        """A transaction was taken up whose commit record is in the log, durably.

        Args:
            running: the transaction.
            effects: what is sent for it.
        """
        machine = running.transaction
        self._trace.note(
            "Recovered",
            machine.gtrid,
            coordinator=self._self,
            fields={"decided_unix_ms": running.decided_unix_ms},
            after=machine.state,
            branches=self._moved(machine, ""),
            effects=told_effects(effects) or None,
        )

    def swept(self, gtrid: str, bqual: str, decision: Decision) -> None:
        """The sweep is about to end an orphan.

        Args:
            gtrid: its transaction, which this life does not drive.
            bqual: the branch.
            decision: what it is told.
        """
        self._trace.note("OrphanSwept", gtrid, branch=bqual, coordinator=self._self, fields={"decision": decision})

    def resolved(self, gtrid: str, action: str, heuristic: bool, operator: str) -> None:
        """An operator steps in, or has just stepped in.

        Args:
            gtrid: the transaction.
            action: what the command was.
            heuristic: whether it goes against the decision.
            operator: who.
        """
        fields = {"action": action, "heuristic": heuristic, "operator": operator}
        self._trace.note("OperatorActed", gtrid, coordinator=self._self, fields=fields)

    def _begun(self, running: Running) -> None:
        """Told with the first event, for a name that nobody uses is no transaction yet."""
        fields = {
            "begun_unix_ms": running.begun_unix_ms,
            "deadline_s": running.transaction.deadline_s,
            "client": running.client,
            "one_shot": running.one_shot,
        }
        self._trace.note("Begun", running.gtrid, coordinator=self._self, fields=fields, after=TransactionState.ACTIVE)
        self._branches[running.gtrid] = {}

    def _moved(
        self, machine: GlobalTransaction, named: str, *, late: bool = False
    ) -> dict[str, tuple[str | None, str]] | None:
        """The branches that the step moved or the event names, each with its states before and after.

        What comes after the end of a transaction moves no branch any more, and nothing is remembered of them by then.
        """
        seen = self._branches.setdefault(machine.gtrid, {})
        moved: dict[str, tuple[str | None, str]] = {}
        for bqual, branch in machine.branches.items():
            state = branch.state.name
            before = state if late else seen.get(bqual)
            if state != before or bqual == named:
                moved[bqual] = before, state
                seen[bqual] = state
        return moved or None


def told_effects(effects: Effects) -> dict[str, object]:
    """What came out of a step, in the order in which it is carried out; nothing when nothing did."""
    found: dict[str, object] = {}
    if effects.send:
        found["send"] = [[type(one).__name__, one.bqual] for one in effects.send]
    if effects.force is not None:
        found["force"] = [bqual for bqual, _ in effects.force.branches]
    if effects.send_after_force:
        found["send_after_force"] = [[type(one).__name__, one.bqual] for one in effects.send_after_force]
    if effects.retries:
        found["retries"] = [[one.bqual, one.attempts] for one in effects.retries]
    if effects.end is not None:
        found["end"] = told(effects.end)
    return found
