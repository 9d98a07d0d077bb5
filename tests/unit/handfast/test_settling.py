"""When an answer is lost: the client asks by gtrid until it knows, and says so when nobody can tell."""

from typing import Any

import pytest

import handfast
from handfast import settling
from handfast.catalog import HandfastFault
from handfast.v1 import coordinator_pb2 as wire
from handfast.v1 import types_pb2
from tests.unit.handfast.fake_coordinator import SteppedClock, committed, connected, said_no

UNDECIDED = wire.InquireResponse(standing=wire.STANDING_UNDECIDED, retry_after_ms=200)
NOT_KNOWN_YET = wire.CommitResponse()
INTERNAL = HandfastFault("INTERNAL", problem="oops")
UNKNOWN = HandfastFault("TRANSACTION_UNKNOWN", gtrid="k3v9q2xw-1-1-1")

WORK = [("accounts", "withdraw", b"5"), ("ledger", "credit", b"5")]


def kinds(requests: list[Any]) -> list[type[Any]]:
    return [type(request) for request in requests]


# -- Commit ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framed", [True, False])
async def test_a_commit_whose_answer_was_lost_is_repeated_with_the_same_gtrid(framed: bool) -> None:
    async with connected(framed=framed) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, coordinator.lose)
        async with tm.transaction() as txn:
            pass
        assert txn.outcome is handfast.Outcome.COMMITTED
        assert [request.gtrid for request in coordinator.asked(wire.CommitRequest)] == [txn.gtrid] * 2


async def test_an_abort_learned_by_repeating_is_the_truth() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, coordinator.lose, said_no("a.b", "DEADLOCK", "deadlock detected"))
        with pytest.raises(handfast.TransactionAborted, match="deadlock detected"):
            async with tm.transaction():
                pass


async def test_an_internal_error_is_no_answer() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, INTERNAL, INTERNAL, committed())
        async with tm.transaction() as txn:
            pass
        assert txn.outcome is handfast.Outcome.COMMITTED


async def test_a_coordinator_that_does_not_know_yet_is_asked_again_when_it_says() -> None:
    clock = SteppedClock()
    async with connected(clock=clock) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, NOT_KNOWN_YET)
        coordinator.will_answer(wire.InquireRequest, UNDECIDED, wire.InquireResponse(standing=wire.STANDING_COMMIT))
        async with tm.transaction() as txn:
            pass
        assert txn.outcome is handfast.Outcome.COMMITTED
        assert kinds(coordinator.asked()) == [wire.CommitRequest, wire.InquireRequest, wire.InquireRequest]
        assert clock.slept[1] == pytest.approx(0.2)


async def test_asking_ends_at_the_deadline_plus_the_grace_with_one_last_question() -> None:
    clock = SteppedClock()
    async with connected(clock=clock, outcome_wait=2) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, *[INTERNAL] * 1000)
        coordinator.will_answer(wire.InquireRequest, UNDECIDED)
        began_s = clock.now_s
        txn = tm.transaction(timeout=3)
        with pytest.raises(handfast.OutcomeUnknown) as unknown:
            async with txn:
                pass
        assert clock.now_s - began_s == pytest.approx(5)
        assert f'await tm.outcome("{txn.gtrid}")' in str(unknown.value)
        assert unknown.value.gtrid == txn.gtrid
        assert kinds(coordinator.asked())[-1] is wire.InquireRequest
        assert max(clock.slept) <= 1
        assert txn.outcome is None


async def test_the_last_question_may_bring_the_truth() -> None:
    async with connected(clock=SteppedClock(), outcome_wait=0) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, *[INTERNAL] * 1000)
        async with tm.transaction(timeout=1) as txn:
            pass
        assert txn.outcome is handfast.Outcome.COMMITTED


async def test_a_coordinator_that_never_answers_leaves_the_outcome_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "LAST_QUESTION_S", 0.05)
    async with connected(outcome_wait=0.05) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, coordinator.keep_waiting)
        coordinator.will_answer(wire.InquireRequest, coordinator.keep_waiting)
        with pytest.raises(handfast.OutcomeUnknown, match=r"did not answer within 0\.05 s"):
            async with tm.transaction(timeout=0.05):
                pass


async def test_a_coordinator_that_dies_during_the_commit_leaves_the_outcome_unknown() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, coordinator.leave)
        with pytest.raises(handfast.OutcomeUnknown, match="may have committed"):
            async with tm.transaction(timeout=1):
                pass


async def test_a_coordinator_that_was_never_reached_has_certainly_not_committed() -> None:
    clock = SteppedClock()
    async with connected(clock=clock) as (coordinator, tm):
        txn = tm.transaction(timeout=3)

        async def work() -> None:
            async with txn:
                await coordinator.vanish(tm)

        began_s = clock.now_s
        with pytest.raises(handfast.CoordinatorUnavailable, match="is not committed") as unavailable:
            await work()
        assert unavailable.value.gtrid == txn.gtrid
        assert clock.now_s - began_s >= 3  # until the deadline it was worth trying


async def test_a_commit_that_was_never_sent_goes_through_once_the_coordinator_is_back() -> None:
    async with connected() as (coordinator, tm):
        async with tm.transaction() as txn:
            await coordinator.restart()
        assert txn.outcome is handfast.Outcome.COMMITTED


async def test_a_stopping_coordinator_did_nothing_and_is_asked_again() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, HandfastFault("COORDINATOR_STOPPING"))
        async with tm.transaction() as txn:
            pass
        assert txn.outcome is handfast.Outcome.COMMITTED


async def test_a_no_to_the_first_commit_is_a_no() -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, UNKNOWN)
        with pytest.raises(handfast.UnknownTransaction):
            async with tm.transaction():
                pass


async def test_a_no_to_a_repeated_commit_is_not_taken_for_an_abort() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, coordinator.lose, UNKNOWN)
        with pytest.raises(handfast.OutcomeUnknown, match="is not known"):
            async with tm.transaction():
                pass


async def test_a_commit_of_what_was_decided_otherwise_brings_the_reason() -> None:
    async with connected() as (coordinator, tm):
        decided = HandfastFault("ALREADY_DECIDED", gtrid="t", wish="commit", state="ABORTED")
        coordinator.will_answer(wire.CommitRequest, decided)
        aborted = wire.InquireResponse(standing=wire.STANDING_ABORT, cause=types_pb2.ABORT_CAUSE_OPERATOR)
        coordinator.will_answer(wire.InquireRequest, aborted)
        with pytest.raises(handfast.TransactionAborted, match="OPERATOR"):
            async with tm.transaction():
                pass


async def test_what_the_log_has_forgotten_nobody_can_tell() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, NOT_KNOWN_YET)
        coordinator.will_answer(wire.InquireRequest, wire.InquireResponse(standing=wire.STANDING_UNKNOWN))
        with pytest.raises(handfast.OutcomeUnknown, match="no longer reaches back"):
            async with tm.transaction():
                pass


# -- Execute -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framed", [True, False])
async def test_a_one_shot_transaction_returns_what_its_operations_returned(framed: bool) -> None:
    async with connected(framed=framed) as (coordinator, tm):
        result = await tm.execute(WORK, timeout=5)
        assert result.outcome is handfast.Outcome.COMMITTED
        assert result.results == (b"withdraw", b"credit")
        request = coordinator.asked()[0]
        assert (request.gtrid, request.timeout_ms, request.wait) == (result.gtrid, 5000, wire.WAIT_APPLIED)
        assert [(operation.resource, operation.payload) for operation in request.operations] == [
            ("accounts", b"5"),
            ("ledger", b"5"),
        ]


async def test_a_one_shot_abort_says_who_and_why() -> None:
    async with connected() as (coordinator, tm):
        no = said_no("ledger.x", "OPERATION_FAILED", "no such account")
        aborted = wire.ExecuteResponse(outcome=no.outcome, cause=no.cause, branches=no.branches)
        coordinator.will_answer(wire.ExecuteRequest, aborted)
        with pytest.raises(handfast.TransactionAborted, match=r"ledger\.x said no: no such account"):
            await tm.execute(WORK)


async def test_a_one_shot_whose_answer_was_lost_is_asked_after_and_never_sent_again() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.ExecuteRequest, coordinator.lose)
        coordinator.will_answer(wire.InquireRequest, UNDECIDED, wire.InquireResponse(standing=wire.STANDING_COMMIT))
        result = await tm.execute(WORK)
        assert (result.outcome, result.results) == (handfast.Outcome.COMMITTED, None)
        assert kinds(coordinator.asked()) == [wire.ExecuteRequest, wire.InquireRequest, wire.InquireRequest]
        assert len({request.gtrid for request in coordinator.asked()}) == 1


async def test_a_one_shot_with_a_gtrid_of_an_earlier_life_is_sent_once_more_with_a_fresh_one() -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.ExecuteRequest, UNKNOWN)
        result = await tm.execute(WORK)
        assert result.outcome is handfast.Outcome.COMMITTED
        first, second = [request.gtrid for request in coordinator.asked(wire.ExecuteRequest)]
        assert first != second == result.gtrid
        assert len(coordinator.asked(wire.BeginRequest)) == 2


async def test_a_one_shot_is_not_sent_a_third_time() -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.ExecuteRequest, UNKNOWN, UNKNOWN)
        with pytest.raises(handfast.UnknownTransaction):
            await tm.execute(WORK)
        assert len(coordinator.asked(wire.ExecuteRequest)) == 2


async def test_a_one_shot_that_may_have_run_is_not_sent_again_when_its_gtrid_is_unknown() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.ExecuteRequest, coordinator.lose)
        coordinator.will_answer(wire.InquireRequest, UNKNOWN)
        with pytest.raises(handfast.OutcomeUnknown):
            await tm.execute(WORK)
        assert len(coordinator.asked(wire.ExecuteRequest)) == 1


async def test_a_one_shot_that_never_left_says_so_at_once() -> None:
    clock = SteppedClock()
    async with connected(clock=clock) as (coordinator, tm):
        async with tm.transaction():
            pass
        await coordinator.vanish(tm)
        with pytest.raises(handfast.CoordinatorUnavailable):
            await tm.execute(WORK)
        assert clock.slept == []


async def test_a_one_shot_without_operations_is_refused() -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.ExecuteRequest, HandfastFault("OPERATIONS_MISSING"))
        with pytest.raises(handfast.Refused, match="without operations") as refused:
            await tm.execute([])
        assert refused.value.code == "OPERATIONS_MISSING"


async def test_a_one_shot_that_no_message_can_hold_is_refused_here() -> None:
    async with connected() as (coordinator, tm):
        with pytest.raises(handfast.Refused, match="references instead of the data"):
            await tm.execute([("accounts", "store", bytes(15 * 1024 * 1024))])
        assert coordinator.asked() == []


async def test_three_payloads_at_the_default_limit_fit_one_call() -> None:
    async with connected() as (_, tm):
        result = await tm.execute([("accounts", "store", bytes(4 * 1024 * 1024))] * 3)
        assert result.results == (b"store",) * 3


# -- by gtrid ----------------------------------------------------------------------------------------------------------


async def test_an_outcome_can_be_asked_for_at_any_time() -> None:
    pending = types_pb2.Branch(bqual="ledger.x", state=types_pb2.BRANCH_STATE_IN_DOUBT)
    async with connected() as (coordinator, tm):
        coordinator.will_answer(
            wire.InquireRequest,
            wire.InquireResponse(standing=wire.STANDING_COMMIT, branches=[pending]),
            wire.InquireResponse(standing=wire.STANDING_ABORT, cause=types_pb2.ABORT_CAUSE_DEADLINE, reason="late"),
            UNDECIDED,
            wire.InquireResponse(standing=wire.STANDING_UNKNOWN),
        )
        reports = [await tm.outcome("k3v9q2xw-1-1-1") for _ in range(4)]
        assert [(str(report.standing), report.outcome) for report in reports] == [
            ("COMMIT", handfast.Outcome.COMMITTED),
            ("ABORT", handfast.Outcome.ABORTED),
            ("UNDECIDED", None),
            ("UNKNOWN", None),
        ]
        assert [branch.bqual for branch in reports[0].pending] == ["ledger.x"]
        assert (reports[1].cause, reports[1].reason) == (handfast.AbortCause.DEADLINE, "late")
        assert reports[2].retry_after_s == pytest.approx(0.2)


async def test_asking_for_the_outcome_survives_a_connection_that_broke_unnoticed() -> None:
    async with connected() as (coordinator, tm):
        # It dies at the question, and its new life may not listen yet when the question is asked again.
        coordinator.will_answer(wire.InquireRequest, coordinator.lose, UNDECIDED)
        report = await tm.outcome("k3v9q2xw-1-1-1")
        assert report.standing is handfast.Standing.UNDECIDED


async def test_a_branch_that_did_not_vote_is_not_said_to_have_said_no() -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, said_no("ledger.x", "VOTE_LOST", "no answer within 2 s"))
        with pytest.raises(handfast.TransactionAborted, match=r"ledger\.x gave no vote: no answer within 2 s"):
            async with tm.transaction():
                pass


async def test_asking_nobody_for_an_outcome_says_so() -> None:
    async with connected() as (coordinator, tm):
        await coordinator.peer.kill()
        with pytest.raises(handfast.CoordinatorUnavailable):
            await tm.outcome("k3v9q2xw-1-1-1")


async def test_a_malformed_gtrid_is_refused_even_to_a_repeat() -> None:
    malformed = HandfastFault("GTRID_MALFORMED", text="nonsense")
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.InquireRequest, malformed)
        coordinator.will_answer(wire.CommitRequest, malformed)
        for ask in (tm.outcome, tm.commit):
            with pytest.raises(handfast.Refused, match="is not a gtrid"):
                await ask("nonsense")


async def test_a_commit_can_be_repeated_from_another_process() -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, committed(), said_no("a.b", "DEADLOCK", "deadlock"), UNKNOWN)
        report = await tm.commit("k3v9q2xw-1-1-1")
        assert (report.standing, report.outcome) == (handfast.Standing.COMMIT, handfast.Outcome.COMMITTED)
        with pytest.raises(handfast.TransactionAborted):
            await tm.commit("k3v9q2xw-1-1-1")
        with pytest.raises(handfast.OutcomeUnknown):
            await tm.commit("k3v9q2xw-1-1-1")


async def test_a_rollback_can_be_asked_for_by_gtrid() -> None:
    async with connected() as (coordinator, tm):
        decided = HandfastFault("ALREADY_DECIDED", gtrid="t", wish="roll back", state="COMMITTED")
        report = await tm.rollback("k3v9q2xw-1-1-1", "x" * 2000)
        assert report.outcome is handfast.Outcome.ABORTED
        assert coordinator.asked()[0].reason == "x" * 1024
        coordinator.will_answer(wire.RollbackRequest, decided)
        with pytest.raises(handfast.AlreadyDecided):
            await tm.rollback("k3v9q2xw-1-1-1")


async def test_an_unknown_outcome_is_not_rolled_back_on_the_way_out() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, NOT_KNOWN_YET)
        coordinator.will_answer(wire.InquireRequest, wire.InquireResponse(standing=wire.STANDING_UNKNOWN))
        with pytest.raises(handfast.OutcomeUnknown):
            async with tm.transaction() as txn:
                await txn.commit()
        assert coordinator.asked(wire.RollbackRequest) == []


async def test_a_transaction_whose_outcome_was_unknown_can_be_asked_to_commit_again() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, NOT_KNOWN_YET, UNKNOWN, committed())
        coordinator.will_answer(wire.InquireRequest, wire.InquireResponse(standing=wire.STANDING_UNKNOWN))
        txn = tm.transaction()
        with pytest.raises(handfast.OutcomeUnknown):
            async with txn:
                pass
        with pytest.raises(handfast.OutcomeUnknown):  # a no to a repeat
            await txn.commit()
        await txn.commit()
        assert txn.outcome is handfast.Outcome.COMMITTED


# -- how many branches -------------------------------------------------------------------------------------------------


async def test_every_question_about_a_transaction_says_how_many_branches_are_known_to_have_joined() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, coordinator.lose, NOT_KNOWN_YET)
        async with tm.transaction() as txn:
            txn.context.branches.update({"accounts.a1", "ledger.b1"})
        assert kinds(coordinator.asked()) == [wire.CommitRequest, wire.CommitRequest, wire.InquireRequest]
        assert [request.branches for request in coordinator.asked()] == [2, 2, 2]


async def test_a_rollback_says_how_many_branches_are_known_to_have_joined() -> None:
    async with connected() as (coordinator, tm):
        async with tm.transaction() as txn:
            txn.context.branches.update({"accounts.a1", "ledger.b1"})
            await txn.rollback()
        assert [request.branches for request in coordinator.asked(wire.RollbackRequest)] == [2]


async def test_a_rollback_of_what_the_coordinator_forgot_is_one_when_nobody_asked_for_the_commit() -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.RollbackRequest, UNKNOWN)
        async with tm.transaction() as txn:
            await txn.rollback("changed my mind")
        assert txn.outcome is handfast.Outcome.ABORTED


async def test_a_rollback_of_what_the_coordinator_forgot_proves_nothing_after_a_commit_was_asked_for() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, coordinator.lose, UNKNOWN)
        coordinator.will_answer(wire.RollbackRequest, UNKNOWN, UNKNOWN)
        async with tm.transaction() as txn:
            with pytest.raises(handfast.OutcomeUnknown):
                await txn.commit()
            with pytest.raises(handfast.UnknownTransaction):
                await txn.rollback()
        with pytest.raises(handfast.UnknownTransaction):
            await tm.rollback(txn.gtrid)


async def test_a_one_shot_transaction_has_as_many_branches_as_it_names_resources() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.ExecuteRequest, coordinator.lose)
        await tm.execute([*WORK, ("accounts", "deposit", b"1")])
        assert [request.branches for request in coordinator.asked(wire.InquireRequest)] == [2]


async def test_an_unknown_outcome_tells_with_how_many_branches_to_ask() -> None:
    async with connected(clock=SteppedClock()) as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, *[INTERNAL] * 1000)
        coordinator.will_answer(wire.InquireRequest, UNDECIDED)
        with pytest.raises(handfast.OutcomeUnknown, match="branches=2") as unknown:
            async with tm.transaction(timeout=1) as txn:
                txn.context.branches.update({"accounts.a1", "ledger.b1"})
        assert unknown.value.branches == 2
        await tm.outcome(txn.gtrid)  # this tm remembers
        assert coordinator.asked(wire.InquireRequest)[-1].branches == 2


async def test_another_process_passes_on_how_many_branches_it_was_told() -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.InquireRequest, UNDECIDED)
        await tm.outcome("k3v9q2xw-1-1-1", branches=3)
        assert coordinator.asked(wire.InquireRequest)[-1].branches == 3
