"""The report on branches in doubt: each prepared branch, why it still is, and the command that ends it.

Nothing here changes anything; in particular it does not *inquire*, for to answer an inquiry can use up a name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from coordinator.log.records import DecisionRecord
from coordinator.protocol.states import Decision, TransactionState, Vote
from coordinator.protocol.transaction import FINAL_STATES
from coordinator.runtime.links import Links
from coordinator.runtime.lives import OLD_COPY
from coordinator.runtime.requests import Requests
from coordinator.runtime.running import Running
from coordinator.runtime.survey import BranchKey, survey
from handfast.catalog import HandfastFault
from handfast.v1 import participant_pb2 as p
from handfast.xid import Gtrid, Xid, split_bqual

S = TransactionState


@dataclass(frozen=True, slots=True)
class InDoubt:
    """A prepared branch.

    Args:
        branch: as its resource shows it.
        resource: where it is.
        state: its transaction's state at the coordinator; None when it knows none.
        why: why it is still prepared.
        command: the command that resolves it, or shows more when none does; SQL for a branch that is not ours.
        foreign: whether another coordinator made it.
        not_asked: whether its resource could not be asked, so that this is what the coordinator itself knows.
    """

    branch: p.PreparedBranch
    resource: str
    state: TransactionState | None
    why: str
    command: str
    foreign: bool = False
    not_asked: bool = False


class InDoubtReport:
    """Finds the branches in doubt and explains them.

    Args:
        requests: the coordinator's requests.
        links: the way to participants.
        sweep_interval_s: the time between two sweeps for orphans, in seconds.
    """

    def __init__(self, requests: Requests, links: Links, sweep_interval_s: float) -> None:
        self._requests = requests
        self._driver = requests.driver
        self._links = links
        self._sweep_interval_s = sweep_interval_s

    async def list(self) -> tuple[list[InDoubt], list[p.Finding]]:
        """Ask every participant.

        Returns:
            The branches, oldest first and those of other coordinators last, and a finding for each resource that could
            not be asked.
        """
        surveyed = await survey(self._requests, self._links, detail=True, foreign=True)
        ours = [self.explain(branch) for branch in surveyed.prepared.values()]
        for finding in surveyed.unreachable:
            ours += self._known_of(finding, surveyed.prepared.keys())
        foreign = [self._explain_foreign(branch) for branch in surveyed.foreign.values()]
        return [*_oldest_first(ours), *_oldest_first(foreign)], surveyed.unreachable

    def explain(self, branch: p.PreparedBranch) -> InDoubt:
        """Say why one prepared branch is there, and what ends it."""
        running = self._driver.find(branch.gtrid)
        if running is not None:
            why, command = self._why_in_memory(running, branch.bqual)
            return self._in_doubt(branch, running.transaction.state, why, command)
        try:
            logged = self._driver.log.lookup(branch.gtrid)
        except HandfastFault as damaged:
            return self._in_doubt(branch, None, f"its record can't be read: {damaged.message}", _show(branch.gtrid))
        if logged is not None:
            return self._why_in_log(branch, logged.decision)
        return self._why_unrecorded(branch)

    def _in_doubt(self, branch: p.PreparedBranch, state: S | None, why: str, command: str) -> InDoubt:
        return InDoubt(branch, split_bqual(branch.bqual)[0], state, why, command)

    # -- not told by the resource, or not ours ---------------------------------------------------------------------

    def _known_of(self, unreachable: p.Finding, listed: Collection[BranchKey]) -> Iterator[InDoubt]:
        """The branches of a resource that could not be asked which must be in doubt, as far as memory goes."""
        now_unix_ms = self._driver.clock.unix_ms()
        for running in self._driver.transactions.values():
            since_unix_ms = running.decided_unix_ms or running.begun_unix_ms
            for branch in running.transaction.pending:
                of_resource = branch.bqual.partition(".")[0] == unreachable.subject
                if not of_resource or branch.vote is not Vote.YES or (running.gtrid, branch.bqual) in listed:
                    continue
                why, command = self._why_in_memory(running, branch.bqual)
                shown = p.PreparedBranch(
                    gtrid=running.gtrid,
                    bqual=branch.bqual,
                    gid=Xid(running.gtrid, branch.bqual).gid(),
                    prepared_unix_ms=since_unix_ms,
                    age_ms=max(0, now_unix_ms - since_unix_ms),
                )
                why = f"its resource can't be asked ({unreachable.found.rstrip('.')}). By the coordinator's books {why}"
                state = running.transaction.state
                yield InDoubt(shown, unreachable.subject, state, why, command, not_asked=True)

    def _explain_foreign(self, branch: p.PreparedBranch) -> InDoubt:
        made_by, ours = Xid(branch.gtrid, branch.bqual).coordinator_id, self._requests.gtrids.coordinator_id
        why = (
            f"NOT OURS: coordinator {made_by} made it, this one is {ours} and never touches it. If {made_by} runs, it "
            "ends the branch itself. If its log is lost, find out what the transaction's other branches did, and end "
            "this one the same way, connected to its database as its owner"
        )
        gid = Xid(branch.gtrid, branch.bqual).gid()
        # Both at once, and no statement together: nobody runs it without having chosen.
        command = f"COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}'"
        return InDoubt(branch, split_bqual(branch.bqual)[0], None, why, command, foreign=True)

    # -- in memory -------------------------------------------------------------------------------------------------

    def _why_in_memory(self, running: Running, bqual: str) -> tuple[str, str]:
        machine = running.transaction
        if running.broken:
            why = f"its transaction was set aside after a defect: {running.broken}. A restart takes it up from the log"
            return why, _show(running.gtrid)
        if machine.state in FINAL_STATES:
            why = (
                f"its transaction is {machine.state.value} as far as the coordinator knows; the next sweep ends the "
                f"branch, within about {self._sweep_interval_s:g} s"
            )
            return why, "handfast indoubt"
        if machine.decision is None:
            return self._why_undecided(running), _resolve(running.gtrid, "rollback")
        return self._why_undelivered(running, bqual), _resolve(running.gtrid, "retry-now")

    def _why_undecided(self, running: Running) -> str:
        machine = running.transaction
        if machine.offered:
            return "every vote is in, and the decision is being made durable; nothing to do"
        left_s = (running.deadline_unix_ms - self._driver.clock.unix_ms()) / 1000
        missing = [branch.bqual for branch in machine.branches.values() if branch.vote is None]
        awaited = f"the votes of {', '.join(missing)} are awaited" if missing else "it is not decided"
        return f"{awaited}; nothing to do: its deadline ends it in {max(left_s, 0.0):.1f} s"

    def _why_undelivered(self, running: Running, bqual: str) -> str:
        machine = running.transaction
        decision = "commit" if machine.decision is Decision.COMMIT else "abort"
        branch = machine.branches.get(bqual)
        if branch is None:
            return f"{decision} is decided, and the branch is not one that was enlisted; the next sweep ends it"
        tried = f"{decision} is decided and was sent {branch.attempts} time(s)"
        if branch.last_error:
            tried += f"; the last error: {branch.last_error}"
        due_unix_ms = running.next_attempt_unix_ms.get(bqual, 0)
        if not due_unix_ms:
            return f"{tried}; nothing to do: its answer is awaited"
        in_s = max(0.0, (due_unix_ms - self._driver.clock.unix_ms()) / 1000)
        return f"{tried}; nothing to do: it will be retried in {in_s:.1f} s, and for as long as it takes"

    # -- not in memory ---------------------------------------------------------------------------------------------

    def _why_in_log(self, branch: p.PreparedBranch, record: DecisionRecord) -> InDoubt:
        state = S.COMMITTING if record.decision is Decision.COMMIT else S.ABORTING
        why = (
            f"{record.decision.value} stands in the log, and the branch has not heard; nothing to do: the next sweep "
            f"tells it, within about {self._sweep_interval_s:g} s"
        )
        action = "commit" if record.decision is Decision.COMMIT else "rollback"
        return self._in_doubt(branch, state, why, _resolve(branch.gtrid, action))

    def _why_unrecorded(self, branch: p.PreparedBranch) -> InDoubt:
        gtrid = Gtrid.parse(branch.gtrid)
        if self._requests.is_from_unseen_life(branch.gtrid):
            why = f"it {OLD_COPY}. Nobody here can tell what was decided: find the newer log"
            return self._in_doubt(branch, None, why, "handfast doctor")
        log = self._driver.log
        if gtrid.time_ms < log.horizon_unix_ms or log.was_forgotten(branch.gtrid):
            why = (
                "its transaction is older than the log's memory, or was forgotten by hand: nobody can tell any more "
                "what was decided. Compare the databases, then choose"
            )
            return self._in_doubt(branch, None, why, _resolve(branch.gtrid, "rollback") + " --heuristic")
        why = (
            "an orphan: there is no commit record, so it is presumed aborted; nothing to do: the next sweep rolls it "
            f"back, within about {self._sweep_interval_s:g} s"
        )
        return self._in_doubt(branch, None, why, _resolve(branch.gtrid, "rollback"))


def _oldest_first(found: Iterable[InDoubt]) -> list[InDoubt]:
    return sorted(found, key=lambda one: one.branch.prepared_unix_ms)


def _resolve(gtrid: str, action: str) -> str:
    return f"handfast resolve {gtrid} --{action}"


def _show(gtrid: str) -> str:
    return f"handfast transactions show {gtrid}"
