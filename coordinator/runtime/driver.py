"""The one loop: step, force, send.

Every request, reply, timer and durable record ends in ``feed``: one event goes into one machine, and the effects that
come out are obeyed in the order their type gives. Nothing here awaits; the event loop's thread runs each step to its
end, so a transaction is never seen half-way.

A transaction lives in ``transactions`` until its machine is final; what is kept of it then, ``Ended`` decides.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from google.protobuf.message import Message

from coordinator.log.records import DecisionRecord, EndRecord, LoggedBranch
from coordinator.log.store import LogBroken, LogRefused, LogStore
from coordinator.protocol import events as e
from coordinator.protocol.effects import (
    NOTHING,
    Effects,
    SendCommit,
    SendCommitOnePhase,
    SendPrepare,
    SendRollback,
)
from coordinator.protocol.effects import EndRecord as EndWanted
from coordinator.protocol.members import ABORT, ABORTING, COMMIT, PREPARING, YES
from coordinator.protocol.states import Cause, Decision, Outcome
from coordinator.protocol.transaction import FINAL_STATES, GlobalTransaction
from coordinator.runtime import messages
from coordinator.runtime.answers import Answers, tell
from coordinator.runtime.backoff import Backoff
from coordinator.runtime.clock import Clock
from coordinator.runtime.directory import STATIC_INSTANCE
from coordinator.runtime.ended import Ended, count_end
from coordinator.runtime.entropy import Entropy
from coordinator.runtime.failpoints import Failpoints
from coordinator.runtime.in_memory import Transactions
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.retries import Retries
from coordinator.runtime.running import HISTORY_MAX, NOTHING_TO_DO, OnAnswer, Running, Waiter, Work
from coordinator.runtime.schedule import Schedule
from coordinator.runtime.trace import ProtocolTrace
from coordinator.runtime.transport import Transport
from handfast.catalog import HandfastFault
from handfast.frames import UNIMPLEMENTED, CallFailed
from handfast.v1 import participant_pb2 as p
from handfast.v1.types_pb2 import Operation
from handfast.xid import named_unix_ms, split_bqual

logger = logging.getLogger(__name__)

_ACKNOWLEDGEMENTS = (p.ParticipantCommitResponse, p.ParticipantRollbackResponse)


class Driver:
    """Drives every transaction of one coordinator.

    Args:
        log: the open decision log.
        transport: the way to participants.
        clock: where time comes from.
        entropy: where jitter comes from.
        options: limits and times.
        failpoints: planned crashes, for tests.
        on_log_broken: told why, when the log can't be trusted any more; the process must stop.
    """

    def __init__(
        self,
        log: LogStore,
        transport: Transport,
        clock: Clock,
        entropy: Entropy,
        options: DriverOptions,
        failpoints: Failpoints,
        on_log_broken: Callable[[LogBroken], None],
    ) -> None:
        self.log = log
        self.transport = transport
        self.clock = clock
        self.options = options
        self.transactions = Transactions()
        self.open_by_client: Counter[str] = Counter()
        self._ended = Ended(options)
        self.finished = self._ended.finished
        self.unrecorded = self._ended.unrecorded
        self.observers: list[Callable[[Running], None]] = []
        self.trace: ProtocolTrace | None = None
        self.counters = dict.fromkeys(
            ("begun", "committed", "aborted", "heuristic", "one_phase", "read_only", "retries", "recovered"), 0
        )
        self.closed = False
        self.failpoints = failpoints
        self.on_log_broken = on_log_broken
        self.deadlines: Schedule[str] = Schedule(clock, self.on_deadline)
        self.answers = Answers(clock, options, self.transactions)
        backoff = Backoff(options.retry_base_s, options.retry_cap_s, entropy)
        self._retries = Retries(clock, backoff, self._on_retry_due)
        # Any: each takes messages of its own kind, which is the key it stands under.
        self._senders: dict[type, Callable[[Running, Any], None]] = {
            SendPrepare: self._send_prepares,
            SendCommitOnePhase: self._send_one_phase,
            SendCommit: self._send_decisions,
            SendRollback: self._send_decisions,
        }

    # -- in and out of memory --------------------------------------------------------------------------------------

    def begin(self, gtrid: str, timeout_s: float, client: str = "") -> Running:
        """Hold a new transaction. The name was claimed by the caller."""
        running = self._begun(gtrid, timeout_s, client, self.clock.now_s(), self.clock.unix_ms())
        if self.observers:
            self._tell_observers(running)
        return running

    def execute(self, gtrid: str, timeout_s: float, work: Work, client: str = "") -> Running:
        """Hold a new one-shot transaction, and start to commit it. The name was claimed by the caller."""
        now_s, now_unix_ms = self.clock.now_s(), self.clock.unix_ms()
        running = self._begun(gtrid, timeout_s, client, now_s, now_unix_ms)
        running.one_shot = True
        running.operations = work.operations
        running.result_places = work.places
        if self.observers:
            self._tell_observers(running)
        for bqual in work.operations:
            self.feed(running, e.enlisted(bqual), now_unix_ms)
        self.feed(running, e.CommitRequested(now_s), now_unix_ms)
        return running

    def _begun(self, gtrid: str, timeout_s: float, client: str, now_s: float, now_unix_ms: int) -> Running:
        deadline_s = now_s + timeout_s
        deadline_unix_ms = now_unix_ms + int(timeout_s * 1000)
        running = Running(GlobalTransaction(gtrid, deadline_s), now_unix_ms, deadline_unix_ms, client)
        self._hold(running)
        self.deadlines.add(gtrid, deadline_s)
        self.counters["begun"] += 1
        return running

    def recover(self, record: DecisionRecord) -> Running:
        """Take up a transaction that the log says is decided and not ended; one that is driven already goes on."""
        if record.gtrid in self.transactions:
            return self.transactions[record.gtrid]
        branches = [(branch.bqual, branch.proof) for branch in record.branches]
        machine, effects = GlobalTransaction.recovered(record.gtrid, branches)
        running = Running(machine, record.begun_unix_ms, client=record.client, recovered=True)
        running.decided_unix_ms = record.decided_unix_ms
        running.history.append((self.clock.unix_ms(), e.DecisionStood(COMMIT)))
        self._hold(running)
        self.counters["recovered"] += 1
        if self.trace is not None:
            self.trace.recovered(running, effects)
        try:
            self._carry_out(running, effects, self.clock.unix_ms())
        except Exception as defect:  # noqa: BLE001 - reported by set_aside
            self.set_aside(running, defect)
        return running

    def _hold(self, running: Running) -> None:
        self.transactions.single[running.transaction.gtrid] = running
        self.open_by_client[running.client] = self.open_by_client.get(running.client, 0) + 1  # a Counter asks Python

    def _let_go(self, gtrid: str) -> None:
        running = self.transactions.single.pop(gtrid, None)
        if running is None:
            return
        self.count_out(running.client, 1)

    def count_out(self, client: str, count: int) -> None:
        """So many of a client's transactions have left memory."""
        left = self.open_by_client[client] - count
        if left:
            self.open_by_client[client] = left
        else:
            self.open_by_client.pop(client)

    def find(self, gtrid: str) -> Running | None:
        """Return a transaction that is in memory, ended ones included."""
        return self.transactions.find(gtrid) or self.finished.find(gtrid)

    def close(self) -> None:
        """Call off every timer, and hear of nothing more: replies that fail while connections close start nothing."""
        self.closed = True
        self.deadlines.close()
        self.answers.close()
        self._retries.close()

    # -- one step --------------------------------------------------------------------------------------------------

    def feed(self, running: Running, event: e.Event, now_unix_ms: int = 0) -> None:
        """Step one machine with one event and obey what it wants.

        Args:
            running: the transaction.
            event: what happened.
            now_unix_ms: the time, from whoever has just asked for it; 0 asks the clock.
        """
        if running.broken or self.closed:
            return
        machine = running.transaction
        before = machine.state
        now_unix_ms = now_unix_ms or self.clock.unix_ms()
        history = running.history
        if len(history) >= HISTORY_MAX:
            running.shorten_history()
        history.append((now_unix_ms, event))
        try:
            effects = machine.step(event)
            if self.trace is not None:
                self.trace.stepped(running, event, before, effects)
            if effects is not NOTHING:
                self._carry_out(running, effects, now_unix_ms)
        except Exception as defect:  # noqa: BLE001 - reported by set_aside
            self.set_aside(running, defect)
            return
        if machine.state is not before:
            self._on_moved(running, now_unix_ms)
        elif machine.state is not ABORTING:
            return  # nobody is answered but at a move, or when an abort has been tried at its last branch
        if running.waiters:
            self.answers.tell_ready(running)

    def wait_for(self, running: Running, on_answer: OnAnswer, at_decision: bool = False) -> None:
        """Tell somebody the outcome when it is time; at once when it is time already."""
        waiter = Waiter(on_answer, at_decision)
        if running.broken:
            tell(running, waiter, _fault_of(running))
            return
        running.waiters.append(waiter)
        machine = running.transaction
        if machine.decided:
            self.answers.limit_wait(running)
            self.answers.tell_ready(running)
        elif machine.gtrid not in self.deadlines:
            # Undecided past its deadline: the log or the only branch has it, and nobody knows for how long.
            self.answers.limit_wait(running)

    def retry_now(self, resource: str = "", gtrid: str = "") -> int:
        """Send at once what waits for its next attempt: all of it, one resource's, or one transaction's.

        Returns:
            How many messages were due.
        """
        return self._retries.hurry(resource, gtrid)

    def _carry_out(self, running: Running, effects: Effects, now_unix_ms: int) -> None:
        if effects.send:
            # All of one step go the same way: votes are asked for, or a decision is told (``invariants``).
            self._senders[type(effects.send[0])](running, effects.send)
        if effects.force is not None:
            running.held = effects.send_after_force
            self._force(running, tuple([LoggedBranch(bqual, proof) for bqual, proof in effects.force.branches]))
        for retry in effects.retries:
            self._retries.add(running, retry)
        if effects.end is not None:
            self._write_end(running, effects.end, now_unix_ms)

    def set_aside(self, running: Running, defect: Exception) -> None:
        """Stop driving one transaction, and only that one, on which a defect showed. A restart takes it up again."""
        logger.critical("transaction %s is set aside: %s", running.gtrid, defect, exc_info=defect)
        running.broken = str(defect) or type(defect).__name__
        self.deadlines.cancel(running.gtrid)
        self.answers.forget(running.gtrid)
        self._retries.cancel_all(running)
        waiters, running.waiters = running.waiters, []
        for waiter in waiters:
            tell(running, waiter, _fault_of(running))

    def _on_moved(self, running: Running, now_unix_ms: int) -> None:
        machine = running.transaction
        if machine.state is not PREPARING:
            if not running.decided_unix_ms:
                running.decided_unix_ms = now_unix_ms
                running.deadline_unix_ms = 0
                running.operations = NOTHING_TO_DO
                self.deadlines.cancel(machine.gtrid)
            if machine.state in FINAL_STATES:
                self._retire(running, now_unix_ms)
            elif running.waiters:
                self.answers.limit_wait(running)
        if self.observers:
            self._tell_observers(running)

    def _retire(self, running: Running, now_unix_ms: int) -> None:
        machine = running.transaction
        running.ended_unix_ms = now_unix_ms
        self._let_go(machine.gtrid)
        self.answers.forget(machine.gtrid)
        if running.next_attempt_unix_ms:
            self._retries.cancel_all(running)
        self._ended.keep(running)
        count_end(self.counters, machine)

    def _tell_observers(self, running: Running) -> None:
        for observer in list(self.observers):
            try:
                observer(running)
            except Exception:
                # Whoever looks on must not hold up what is looked at.
                logger.exception("an observer of transaction %s failed", running.gtrid)

    # -- force -----------------------------------------------------------------------------------------------------

    def _force(self, running: Running, branches: tuple[LoggedBranch, ...]) -> None:
        self.failpoints.reach("before-force")
        if self.clock.now_s() > running.transaction.deadline_s:
            # The machine looked at the time when the vote came, and this process may have stood still since then. Told
            # to it later, because it is in the middle of the step that wants the record.
            self.clock.call_later(0.0, partial(self.on_too_late_to_force, running))
            return
        record = DecisionRecord(
            running.transaction.gtrid, COMMIT, branches, self.clock.unix_ms(), running.begun_unix_ms, running.client
        )
        self.log.decide(record, partial(self.on_decided, running))

    def on_too_late_to_force(self, running: Running) -> None:
        running.held = ()
        self.feed(running, e.DecisionRefused("the deadline passed before the decision was written", Cause.DEADLINE))

    def on_decided(self, running: Running, standing: Decision | LogRefused | LogBroken) -> None:
        held, running.held = running.held, ()
        if isinstance(standing, LogBroken):
            self.on_log_broken(standing)
            return
        if self.closed:
            return  # the next start finds what stands in the log
        if isinstance(standing, LogRefused):
            self.feed(running, e.DecisionRefused(f"the decision log refused the commit: {standing}"))
            return
        self.failpoints.reach("after-force")
        self.feed(running, e.decision_stood(standing))
        if standing is COMMIT:
            self._release(running, held)

    def _release(self, running: Running, held: tuple[SendCommit, ...]) -> None:
        if self.failpoints.armed("mid-commit"):
            held, running.held = held[:1], held[1:]  # the others wait for this one's acknowledgement
        self._send_decisions(running, held)

    def _write_end(self, running: Running, wanted: EndWanted, now_unix_ms: int) -> None:
        self.failpoints.reach("before-end")
        machine = running.transaction
        # Never before the time in its name, or the clean-up could drop it while the horizon says it is known.
        ended_unix_ms = max(now_unix_ms, named_unix_ms(machine.gtrid))
        record = EndRecord(machine.gtrid, wanted.outcome, ended_unix_ms, wanted.evidence)
        if machine.decision is not COMMIT:
            # A heuristic end of an abort: without a decision record there is nothing that it could be the end of. Both
            # travel in one force. Where an abort stood already, it goes on standing.
            branches = tuple(LoggedBranch(b.bqual, b.proof) for b in machine.branches.values() if b.vote is YES)
            at = (record.ended_unix_ms, running.begun_unix_ms)
            abort = DecisionRecord(machine.gtrid, ABORT, branches, *at, running.client)
            self.log.decide(abort, partial(self._on_abort_written, machine.gtrid))
        # Without a callback: a log that refuses an end keeps it for its next force.
        self.log.end(record)

    def _on_abort_written(self, gtrid: str, result: Decision | LogRefused | LogBroken) -> None:
        if isinstance(result, LogBroken):
            self.on_log_broken(result)
        elif isinstance(result, LogRefused):
            logger.error("the heuristic end of %s was not written, and a restart will not know it: %s", gtrid, result)

    # -- send ------------------------------------------------------------------------------------------------------

    def _send_prepares(self, running: Running, prepares: Sequence[SendPrepare]) -> None:
        self.failpoints.reach("before-prepare")
        gtrid, operations = running.transaction.gtrid, running.operations
        left_s = max(0.0, running.transaction.deadline_s - self.clock.now_s())
        left_ms = messages.left_ms(left_s)
        # A little past the deadline: the abort comes from the deadline, and this only ends the wait for the vote.
        timeout_s = left_s + 1.0
        for prepare in prepares:
            bqual = prepare.bqual
            request = messages.prepare_request(gtrid, bqual, operations.get(bqual, ()), left_ms)
            on_reply = partial(self.on_vote, running, bqual)
            self.transport.send(bqual, request, on_reply, attempt=1, any_instance=False, timeout_s=timeout_s)

    def on_vote(self, running: Running, bqual: str, reply: Message | CallFailed) -> None:
        if isinstance(reply, p.PrepareResponse):
            if results := reply.results:
                running.results[bqual] = results
            self.feed(running, messages.vote_received(bqual, reply, self.clock.now_s()))
            return
        reason = reply.message if isinstance(reply, CallFailed) else f"answered with {type(reply).__name__}"
        self.feed(running, e.VoteLost(bqual, reason))

    def _send_one_phase(self, running: Running, only: Sequence[SendCommitOnePhase]) -> None:
        bqual = only[0].bqual
        self.failpoints.reach("before-prepare")
        left_s = max(0.0, running.transaction.deadline_s - self.clock.now_s())
        operations: Sequence[Operation] = running.operations.get(bqual, ())
        if running.one_phase_maybe_done and (left_s == 0.0 or split_bqual(bqual)[1] == STATIC_INSTANCE):
            # They may have been done. A participant remembers that until the deadline and not much longer, and one that
            # may restart under its old name not even so long: ask what became of them, but don't do them twice.
            operations = ()
        request = messages.one_phase_request(running.gtrid, bqual, operations, messages.left_ms(left_s))
        on_reply = partial(self._on_one_phase, running, bqual)
        timeout_s = left_s + self.options.apply_wait_s
        self.transport.send(bqual, request, on_reply, attempt=1, any_instance=False, timeout_s=timeout_s)

    def _on_one_phase(self, running: Running, bqual: str, reply: Message | CallFailed) -> None:
        if isinstance(reply, p.CommitOnePhaseResponse):
            if reply.results:
                running.results[bqual] = reply.results
            event = messages.one_phase_answered(bqual, reply)
            if event.reason_code == "BRANCH_UNKNOWN" and running.one_phase_maybe_done:
                event = e.OnePhaseAnswered(bqual, Outcome.HEURISTIC_HAZARD, event.reason, event.reason_code)
            self.feed(running, event)
        elif isinstance(reply, CallFailed):
            self._on_one_phase_failed(running, bqual, reply)
        else:
            self.feed(running, e.DeliveryFailed(bqual, f"answered with {type(reply).__name__}"))

    def _on_one_phase_failed(self, running: Running, bqual: str, failure: CallFailed) -> None:
        if failure.code == UNIMPLEMENTED:
            self.feed(running, e.OnePhaseUnsupported(bqual))
            return
        running.one_phase_maybe_done |= failure.maybe_executed
        if not running.one_phase_maybe_done:
            # It never reached the participant, so the branch dies with its connection: a plain abort.
            self.feed(running, e.OnePhaseAnswered(bqual, Outcome.ABORTED, failure.message, "VOTE_LOST"))
        elif failure.code == "RESOURCE_UNKNOWN" or self._is_past_memory(running):
            # The process that held the branch is gone for good, and took the answer with it.
            self.feed(running, e.OnePhaseAnswered(bqual, Outcome.HEURISTIC_HAZARD, failure.message, "VOTE_LOST"))
        else:
            self.feed(running, e.DeliveryFailed(bqual, failure.message))

    def _is_past_memory(self, running: Running) -> bool:
        """Whether nobody would remember the transaction any more, had it ended at its deadline."""
        return self.clock.now_s() > running.transaction.deadline_s + self.options.retention_s

    def _send_decisions(self, running: Running, decisions: Sequence[SendCommit | SendRollback]) -> None:
        machine, in_flight = running.transaction, running.in_flight
        for message in decisions:
            bqual = message.bqual
            if bqual in in_flight and type(message) is SendCommit:
                continue
            in_flight.add(bqual)
            if bqual in running.next_attempt_unix_ms:
                self._retries.cancel(running, bqual)
            branch = machine.branches[bqual]
            # Only a prepared branch is in the database for everybody; an open one is in its own process alone.
            self.transport.send(
                bqual,
                messages.decision_request(machine.gtrid, message),
                partial(self.on_acknowledged, running, bqual),
                attempt=branch.attempts,
                any_instance=branch.vote is YES,
                timeout_s=self.options.reply_timeout_s,
            )

    def on_acknowledged(self, running: Running, bqual: str, reply: Message | CallFailed) -> None:
        running.in_flight.discard(bqual)
        if isinstance(reply, _ACKNOWLEDGEMENTS):
            self.feed(running, messages.branch_ended(bqual, reply))
            if type(reply) is p.ParticipantCommitResponse:
                self.failpoints.reach("mid-commit")
                if running.held:
                    held, running.held = running.held, ()
                    self._send_decisions(running, held)
            return
        reason = reply.message if isinstance(reply, CallFailed) else f"answered with {type(reply).__name__}"
        self.feed(running, e.DeliveryFailed(bqual, reason))

    # -- later -----------------------------------------------------------------------------------------------------

    def _on_retry_due(self, key: tuple[str, str]) -> None:
        gtrid, bqual = key
        running = self.transactions.get(gtrid)
        if running is None or bqual in running.in_flight:
            return
        self._retries.cancel(running, bqual)
        self.counters["retries"] += 1
        self.feed(running, e.RetryDue(bqual))

    def on_deadline(self, gtrid: str) -> None:
        running = self.transactions.get(gtrid)
        if running is None:
            return
        self.feed(running, e.DeadlinePassed())
        if not running.transaction.decided:
            # The decision is in the log's hands or the only branch's; the client need not wait for ever.
            self.answers.limit_wait(running)


def _fault_of(running: Running) -> HandfastFault:
    return HandfastFault("INTERNAL", gtrid=running.gtrid, problem=running.broken)
