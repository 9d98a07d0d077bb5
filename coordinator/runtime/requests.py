"""What applications and participants may ask, checked and handed to the driver.

Every request is idempotent: whoever asks again gets the first answer, from memory or from the log. Where neither knows
the transaction, the answer rests on what the absence of a record proves (``standing``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from coordinator.log.records import ParticipantRecord
from coordinator.log.store import LogBroken, LogRefused
from coordinator.protocol import events as e
from coordinator.protocol.states import Cause, Decision, Outcome, TransactionState
from coordinator.protocol.transaction import GlobalTransaction
from coordinator.runtime.directory import Directory, IsUp, anybody
from coordinator.runtime.driver import Driver
from coordinator.runtime.gtrids import Block, Gtrids
from coordinator.runtime.lives import is_from_unseen_life
from coordinator.runtime.running import OnAnswer, Running, Work, running_from_log
from handfast.catalog import HandfastFault
from handfast.masking import masked
from handfast.v1.types_pb2 import Operation
from handfast.xid import Gtrid, MalformedName, is_gtrid, make_bqual

S = TransactionState


class Standing(Enum):
    """What stands about a transaction."""

    UNDECIDED = "undecided"
    COMMIT = "commit"
    ABORT = "abort"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Inquiry:
    """The answer to an inquiry.

    Args:
        standing: what stands.
        running: the transaction, when it is in memory or has a record.
    """

    standing: Standing
    running: Running | None


class Requests:
    """The coordinator's requests.

    Args:
        driver: drives the transactions.
        gtrids: names them.
        directory: knows the participants.
        is_up: tells which of them can be reached now; new one-shot work goes to those.
    """

    def __init__(self, driver: Driver, gtrids: Gtrids, directory: Directory, is_up: IsUp = anybody) -> None:
        self.driver = driver
        self.gtrids = gtrids
        self.directory = directory
        self._is_up = is_up
        self.stopping = False
        self.on_registered: list[Callable[[ParticipantRecord], None]] = []

    # -- begin and enlist ------------------------------------------------------------------------------------------

    def begin(self, timeout_ms: int, client: str) -> Running:
        """Begin a transaction under a new name.

        Args:
            timeout_ms: how long it may stay undecided; 0 means the default.
            client: who begins it.

        Raises:
            HandfastFault: COORDINATOR_STOPPING or TRANSACTIONS_TOO_MANY.
        """
        self.check_room(client)
        return self.driver.begin(self.gtrids.next(), self.timeout_s(timeout_ms), client)

    def hand_out(self, block_size: int, client: str = "") -> Block:
        """Hand out a block of names; the transactions that get them are the client's.

        Raises:
            HandfastFault: COORDINATOR_STOPPING.
        """
        if self.stopping:
            raise HandfastFault("COORDINATOR_STOPPING")
        return self.gtrids.hand_out(min(block_size, self.driver.options.block_size_max), client)

    def enlist(self, gtrid: str, resource: str, instance: str, timeout_ms: int) -> str:
        """Add a branch; the first that the coordinator hears of a drawn name begins its transaction.

        Returns:
            The branch's name.

        Raises:
            HandfastFault: what is wrong with the names, the transaction or the participant.
        """
        bqual = self._bqual(resource, instance)
        running = self._find_or_begin(gtrid, timeout_ms)
        if running is None:
            raise self._fault_of_absent(gtrid)
        machine = running.transaction
        if running.broken:
            raise HandfastFault("INTERNAL", gtrid=gtrid, problem=running.broken)
        if bqual in machine.branches:
            return bqual
        if machine.state is not S.ACTIVE:
            raise HandfastFault("TRANSACTION_NOT_ACTIVE", gtrid=gtrid, bqual=bqual, state=machine.state.value)
        if len(machine.branches) >= self.driver.options.branches_max:
            raise HandfastFault("BRANCHES_TOO_MANY", gtrid=gtrid, limit=self.driver.options.branches_max)
        if not self.directory.knows(resource, instance):
            raise HandfastFault("RESOURCE_UNKNOWN", gtrid=gtrid, bqual=bqual, resource=f"{resource} ({instance})")
        self.driver.feed(running, e.Enlisted(bqual))
        return bqual

    # -- end -------------------------------------------------------------------------------------------------------

    def commit(self, gtrid: str, branches: int, at_decision: bool, on_answer: OnAnswer) -> None:
        """Commit, or learn what became of it.

        Args:
            gtrid: the transaction.
            branches: how many branches the asker knows of; 0 when it can't tell.
            at_decision: answer when the decision is durable rather than when it is applied.
            on_answer: told the transaction.

        Raises:
            HandfastFault: GTRID_MALFORMED, TRANSACTION_FOREIGN or TRANSACTION_UNKNOWN.
        """
        running = self._find_or_begin(gtrid, 0)
        if running is None:
            on_answer(self._absent(gtrid, branches))
            return
        if running.transaction.state is S.ACTIVE:
            self.driver.feed(running, e.CommitRequested(self.driver.clock.now_s()))
        self.driver.wait_for(running, on_answer, at_decision)

    def rollback(self, gtrid: str, reason: str, branches: int, on_answer: OnAnswer) -> None:
        """Roll back, unless it is decided otherwise.

        Args:
            gtrid: the transaction.
            reason: why, for the reports.
            branches: as in ``commit``.
            on_answer: told the transaction, or ALREADY_DECIDED.

        Raises:
            HandfastFault: GTRID_MALFORMED, TRANSACTION_FOREIGN, TRANSACTION_UNKNOWN or FIELD_INVALID.
        """
        self._check_text("reason", reason, 1024)
        reason = masked(reason)

        def judge(answer: Running | HandfastFault) -> None:
            on_answer(_refuse_rollback(answer) if isinstance(answer, Running) else answer)

        running = self._find_or_begin(gtrid, 0)
        if running is None:
            judge(self._absent(gtrid, branches))
            return
        if running.transaction.state in (S.ACTIVE, S.PREPARING):
            self.driver.feed(running, e.RollbackRequested(Cause.CLIENT, reason or "the client asked for it"))
        self.driver.wait_for(running, judge)

    def execute(
        self,
        gtrid: str,
        timeout_ms: int,
        operations: Sequence[Operation],
        at_decision: bool,
        on_answer: OnAnswer,
        client: str = "",
    ) -> None:
        """Run a whole transaction whose operations travel inside Prepare.

        Args:
            gtrid: a drawn name, or empty.
            timeout_ms: how long it may stay undecided; 0 means the default.
            operations: the work; those on one resource make one branch.
            at_decision: as in ``commit``.
            on_answer: told the transaction.
            client: who asks, when the name was not drawn from a block.

        Raises:
            HandfastFault: what is wrong with the request; then nothing was begun.
        """
        known = self.driver.find(gtrid) if gtrid else None
        fresh = known is None and (not gtrid or self.gtrids.is_claimable(gtrid))
        if known is None and not fresh:
            known = self._logged(gtrid)
        if known is not None and known.transaction.state is S.ACTIVE and not known.broken:
            problem = f"{gtrid} names a transaction whose branches enlist by themselves; draw another name"
            raise HandfastFault("FIELD_INVALID", field="gtrid", problem=problem)
        if known is None:
            work = self._placed(operations)
            if not fresh:
                on_answer(self._absent(gtrid, len(work.operations)))
                return
            owner = self.gtrids.client_of(gtrid) if gtrid else client
            self.check_room(owner)
            if gtrid:
                self.gtrids.claim(gtrid)
            else:
                gtrid = self.gtrids.next()
            known = self.driver.execute(gtrid, self.timeout_s(timeout_ms), work, owner)
        self.driver.wait_for(known, on_answer, at_decision)

    def _placed(self, operations: Sequence[Operation]) -> Work:
        """Choose the branch of each operation."""
        if not operations:
            raise HandfastFault("OPERATIONS_MISSING")
        options = self.driver.options
        branches: dict[str, tuple[str, list[Operation]]] = {}  # by resource
        places = []
        for operation in operations:
            size, resource = len(operation.payload), operation.resource
            if size > options.payload_bytes_max:
                limit = options.payload_bytes_max
                raise HandfastFault("PAYLOAD_TOO_LARGE", operation=operation.name, size=size, limit=limit)
            branch = branches.get(resource)
            if branch is None:
                branch = branches[resource] = self.new_branch(resource), []
            bqual, of_branch = branch
            places.append((bqual, len(of_branch)))
            of_branch.append(operation)
        if len(branches) > options.branches_max:
            raise HandfastFault("BRANCHES_TOO_MANY", gtrid="(new)", limit=options.branches_max)
        return Work(dict(branches.values()), tuple(places))

    def new_branch(self, resource: str) -> str:
        """Choose who does one-shot work on a resource.

        Raises:
            HandfastFault: RESOURCE_UNKNOWN or NAME_MALFORMED.
        """
        try:
            return self.directory.new_branch(resource, self._is_up)
        except HandfastFault:
            self._bqual(resource, "any")  # a name that is none is the better reason why nobody serves it
            raise

    # -- inquire and register --------------------------------------------------------------------------------------

    def inquire(self, gtrid: str, bqual: str, branches: int) -> Inquiry:
        """Tell what stands.

        Args:
            gtrid: the transaction.
            bqual: the branch that asks; empty when a client does.
            branches: how many branches a client knows of; 0 when it can't tell.

        Raises:
            HandfastFault: GTRID_MALFORMED or TRANSACTION_FOREIGN.
        """
        running = self._known(gtrid)
        if running is not None:
            return Inquiry(self._standing_of(running, bqual), running)
        return Inquiry(self._standing_without_record(gtrid, bool(bqual) or branches >= 2), None)

    def register(
        self, participant: ParticipantRecord, on_written: Callable[[LogRefused | LogBroken | None], None]
    ) -> None:
        """Take a participant in; it is known at once and durable when ``on_written`` says so.

        Raises:
            HandfastFault: NAME_MALFORMED or FIELD_INVALID.
        """
        self._bqual(participant.resource, participant.instance)
        self._check_text("address", participant.address, 256)
        if not participant.address:
            raise HandfastFault("FIELD_INVALID", field="address", problem="it is empty; give host:port")
        self.directory.add(participant)
        self.driver.log.register(participant, on_written)
        for listener in self.on_registered:
            listener(participant)

    # -- finding ---------------------------------------------------------------------------------------------------

    def show(self, gtrid: str) -> Running | None:
        """Return a transaction that is in memory or in the log; None otherwise.

        Raises:
            HandfastFault: GTRID_MALFORMED or TRANSACTION_FOREIGN.
        """
        return self._known(gtrid)

    def client_of(self, gtrid: str) -> str:
        """Who began a transaction, or drew its name; empty when that is not on record.

        Raises:
            HandfastFault: GTRID_MALFORMED or TRANSACTION_FOREIGN.
        """
        running = self.driver.find(gtrid)
        if running is not None:
            return running.client
        self._check_gtrid(gtrid)
        drawn_by = self.gtrids.client_of(gtrid)
        if drawn_by:
            return drawn_by
        logged = self.driver.log.lookup(gtrid)
        return logged.decision.client if logged is not None else ""

    def checked_client(self, client: str) -> str:
        """The name that a client gives itself.

        Raises:
            HandfastFault: FIELD_INVALID.
        """
        self._check_text("client", client, 64)
        return client

    def _known(self, gtrid: str) -> Running | None:
        running = self.driver.find(gtrid)
        if running is not None:
            return running
        if self.gtrids.is_claimable(gtrid):
            return None  # nothing was ever begun under this name, so the log need not be asked
        return self._logged(gtrid)

    def _logged(self, gtrid: str) -> Running | None:
        self._check_gtrid(gtrid)
        logged = self.driver.log.lookup(gtrid)
        if logged is None:
            return None
        if logged.end is None and logged.decision.decision is Decision.COMMIT:
            # It left memory before its end was durable, or recovery could not take it up. There is a record, so nothing
            # may be presumed; driving it again is harmless and leads to its end.
            return self.driver.recover(logged.decision)
        return running_from_log(logged)

    def _find_or_begin(self, gtrid: str, timeout_ms: int) -> Running | None:
        running = self._known(gtrid)
        if running is not None:
            return running
        if self.gtrids.is_claimable(gtrid):
            client = self.gtrids.client_of(gtrid)
            self.check_room(client)
            self.gtrids.claim(gtrid)
            return self.driver.begin(gtrid, self.timeout_s(timeout_ms), client)
        return None

    def _standing_of(self, running: Running, bqual: str) -> Standing:
        machine = running.transaction
        if running.broken:
            # What the machine holds can't be trusted; a record can. Without one, a restart will presume the abort.
            logged = self.driver.log.lookup(running.gtrid)
            committed = logged is not None and logged.decision.decision is Decision.COMMIT
            return Standing.COMMIT if committed else Standing.UNDECIDED
        match machine.decision:
            case Decision.COMMIT:
                return Standing.COMMIT
            case Decision.ABORT:
                # An only branch that can't tell how it ended was never prepared: to a prepared one, abort is the truth.
                lost = machine.outcome is Outcome.HEURISTIC_HAZARD and not bqual
                return Standing.UNKNOWN if lost else Standing.ABORT
        return Standing.UNDECIDED

    def _standing_without_record(self, gtrid: str, two_phase: bool) -> Standing:
        """Say what the absence of a record proves.

        A name from a live block that nobody has used proves everything: the answer itself uses it up. Otherwise, for a
        transaction that could only have committed by a record, that is not older than the log's memory, and that comes
        from a life which the log has seen, no record means abort (presumed abort). One of a single branch may have
        committed without leaving a trace here.
        """
        if gtrid in self.driver.unrecorded:
            return Standing.COMMIT
        if self.gtrids.claim(gtrid):
            return Standing.ABORT
        if self.driver.log.was_forgotten(gtrid):
            return Standing.UNKNOWN
        if self.is_from_unseen_life(gtrid) or Gtrid.parse(gtrid).time_ms < self.driver.log.horizon_unix_ms:
            return Standing.UNKNOWN
        return Standing.ABORT if two_phase else Standing.UNKNOWN

    def is_from_unseen_life(self, gtrid: str) -> bool:
        """Whether one of our names comes from a life that the log has never seen, for the log is an old copy."""
        return is_from_unseen_life(self.driver.log, self.gtrids.epoch, gtrid)

    def _absent(self, gtrid: str, branches: int) -> Running:
        """Show a transaction without a record as what its absence proves.

        Raises:
            HandfastFault: TRANSACTION_UNKNOWN when it proves nothing.
        """
        standing = self._standing_without_record(gtrid, branches >= 2)
        if standing is Standing.UNKNOWN:
            raise self._fault_of_absent(gtrid)
        machine = GlobalTransaction(gtrid, 0.0)
        committed = standing is Standing.COMMIT
        machine.decision = Decision.COMMIT if committed else Decision.ABORT
        machine.outcome = Outcome.COMMITTED if committed else Outcome.ABORTED
        machine.state = S.COMMITTED if committed else S.ABORTED
        if not committed:
            machine.cause, machine.reason = Cause.PRESUMED, Cause.PRESUMED.value
        return Running(machine, Gtrid.parse(gtrid).time_ms)

    def _fault_of_absent(self, gtrid: str) -> HandfastFault:
        return HandfastFault("TRANSACTION_UNKNOWN", gtrid=gtrid)

    # -- checks ----------------------------------------------------------------------------------------------------

    def _check_gtrid(self, gtrid: str) -> None:
        if not is_gtrid(gtrid):
            raise HandfastFault("GTRID_MALFORMED", text=gtrid[:80])
        if not self.gtrids.is_ours(gtrid):
            raise HandfastFault("TRANSACTION_FOREIGN", gtrid=gtrid, coordinator_id=self.gtrids.coordinator_id)

    def _bqual(self, resource: str, instance: str) -> str:
        try:
            return make_bqual(resource, instance)
        except MalformedName as problem:
            raise HandfastFault("NAME_MALFORMED", text=problem.text[:80], kind=problem.kind) from problem

    def check_room(self, client: str, count: int = 1) -> None:
        """See that so many transactions of this client may begin now.

        Raises:
            HandfastFault: COORDINATOR_STOPPING, TRANSACTIONS_TOO_MANY or TRANSACTIONS_OF_CLIENT_TOO_MANY.
        """
        if self.stopping:
            raise HandfastFault("COORDINATOR_STOPPING")
        options = self.driver.options
        if len(self.driver.transactions) + count > options.open_transactions_max:
            raise HandfastFault("TRANSACTIONS_TOO_MANY", limit=options.open_transactions_max)
        limit = options.open_transactions_per_client_max
        if client and self.driver.open_by_client.get(client, 0) + count > limit:
            raise HandfastFault("TRANSACTIONS_OF_CLIENT_TOO_MANY", client=client, limit=limit)

    def _check_text(self, field: str, text: str, length_max: int) -> None:
        if len(text) > length_max:
            raise HandfastFault("FIELD_INVALID", field=field, problem=f"longer than {length_max} characters")

    def timeout_s(self, timeout_ms: int) -> float:
        """How long a transaction may stay undecided whose client asks for so many milliseconds; 0 asks for nothing."""
        options = self.driver.options
        return min(timeout_ms / 1000.0, options.timeout_max_s) if timeout_ms else options.default_timeout_s


def _refuse_rollback(running: Running) -> Running | HandfastFault:
    if running.transaction.decision is Decision.COMMIT or not running.transaction.decided:
        state = running.transaction.state.value
        return HandfastFault("ALREADY_DECIDED", gtrid=running.gtrid, wish="roll back", state=state)
    return running
