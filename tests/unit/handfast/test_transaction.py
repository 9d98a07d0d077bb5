"""A transaction, as an application sees it: the block, its end, and what is said when the end is not a commit."""

import asyncio
import logging

import pytest

import handfast
from handfast.catalog import HandfastFault
from handfast.v1 import coordinator_pb2 as wire
from handfast.v1 import types_pb2
from handfast.xid import is_gtrid
from tests.unit.handfast.fake_coordinator import committed, connected, said_no, serving
from tests.waiting import eventually


@pytest.mark.parametrize("framed", [True, False])
async def test_leaving_the_block_commits(framed: bool) -> None:
    async with connected(framed=framed) as (coordinator, tm):
        async with tm.transaction(timeout=5) as txn:
            assert is_gtrid(txn.gtrid)
            before = txn.outcome
        assert before is None
        assert txn.outcome is handfast.Outcome.COMMITTED
        assert coordinator.asked() == [wire.CommitRequest(gtrid=txn.gtrid, wait=wire.WAIT_APPLIED)]


async def test_a_commit_may_answer_at_the_decision() -> None:
    async with connected() as (coordinator, tm):
        async with tm.transaction(wait="decided"):
            pass
        assert coordinator.asked()[0].wait == wire.WAIT_DECIDED


@pytest.mark.parametrize("framed", [True, False])
async def test_an_abort_says_which_branch_said_no_and_why_and_what_to_do(framed: bool) -> None:
    async with connected(framed=framed) as (coordinator, tm):
        coordinator.will_answer(
            wire.CommitRequest, said_no("ledger.7hx2k9qd", "CONSTRAINT_VIOLATED", "balance must not be negative")
        )
        with pytest.raises(handfast.TransactionAborted) as aborted:
            async with tm.transaction() as txn:
                pass
        assert str(aborted.value) == (
            f"Transaction {txn.gtrid} was aborted: ledger.7hx2k9qd said no: balance must not be negative. "
            "[CONSTRAINT_VIOLATED] Change the work, or the data."
        )
        assert (aborted.value.branch, aborted.value.reason_code) == ("ledger.7hx2k9qd", "CONSTRAINT_VIOLATED")
        assert aborted.value.cause is handfast.AbortCause.VOTE_NO
        assert txn.outcome is handfast.Outcome.ABORTED


async def test_a_branch_that_the_abort_overtook_is_not_named_as_its_cause() -> None:
    async with connected() as (coordinator, tm):
        answer = said_no("ledger.b1", "OPERATION_FAILED", "there is no account 7")
        answer.branches.insert(0, said_no("accounts.a1", "ROLLED_BACK_FIRST", "was rolled back before").branches[0])
        coordinator.will_answer(wire.CommitRequest, answer)
        with pytest.raises(handfast.TransactionAborted) as aborted:
            async with tm.transaction():
                pass
    assert (aborted.value.branch, aborted.value.reason) == ("ledger.b1", "there is no account 7")


@pytest.mark.parametrize(
    ("answer", "mend"),
    [
        (said_no("a.b", "PERMISSION_DENIED", "a code that is no vote's"), "handfast transactions show"),
        (said_no("a.b", "NEWER_THAN_US", "who knows"), "Read the branch's reason"),
        (wire.CommitResponse(outcome=types_pb2.OUTCOME_ABORTED), "Run the transaction again"),
        (
            wire.CommitResponse(
                outcome=types_pb2.OUTCOME_ABORTED,
                cause=types_pb2.ABORT_CAUSE_OPERATOR,
                reason="the coordinator is stopping",
            ),
            "the coordinator is stopping. Run the transaction again",
        ),
    ],
    ids=["its words need more", "a newer code", "no cause", "a stop"],
)
async def test_an_abort_always_says_what_to_do(answer: wire.CommitResponse, mend: str) -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, answer)
        with pytest.raises(handfast.TransactionAborted, match=mend):
            async with tm.transaction():
                pass


@pytest.mark.parametrize(
    "answer",
    [
        wire.CommitResponse(outcome=types_pb2.OUTCOME_ABORTED, cause=types_pb2.ABORT_CAUSE_DEADLINE),
        said_no("a.b", "DEADLINE_PASSED", "too late"),
    ],
    ids=["by the coordinator", "by a branch"],
)
async def test_an_abort_for_lack_of_time_is_told_apart(answer: wire.CommitResponse) -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, answer)
        with pytest.raises(handfast.DeadlineExceeded):
            async with tm.transaction():
                pass


async def test_an_exception_rolls_back_and_goes_on_its_way() -> None:
    async with connected() as (coordinator, tm):
        with pytest.raises(ZeroDivisionError, match="oops") as raised:
            async with tm.transaction() as txn:
                raise ZeroDivisionError("oops")
        assert coordinator.asked() == [wire.RollbackRequest(gtrid=txn.gtrid, reason="ZeroDivisionError: oops")]
        assert txn.outcome is handfast.Outcome.ABORTED
        assert not hasattr(raised.value, "__notes__")


async def test_a_rollback_that_fails_is_noted_on_the_exception_and_does_not_hide_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected() as (coordinator, tm):
        txn = tm.transaction()

        async def work() -> None:
            async with txn:
                await coordinator.vanish(tm)
                raise ZeroDivisionError("oops")

        with pytest.raises(ZeroDivisionError) as raised:
            await work()
        assert f"Transaction {txn.gtrid} rolls back by itself" in raised.value.__notes__[0]
        assert txn.gtrid in caplog.text
        assert txn.outcome is None


async def test_a_heuristic_outcome_is_an_error_with_its_evidence() -> None:
    branch = types_pb2.Branch(
        bqual="ledger.7hx2k9qd", outcome=types_pb2.OUTCOME_HEURISTIC_ROLLBACK, evidence="pg_xact_status: aborted"
    )
    async with connected() as (coordinator, tm):
        answer = wire.CommitResponse(outcome=types_pb2.OUTCOME_HEURISTIC_MIXED, branches=[branch])
        coordinator.will_answer(wire.CommitRequest, answer)
        with pytest.raises(handfast.HeuristicOutcome, match="pg_xact_status: aborted") as ended:
            async with tm.transaction() as txn:
                pass
        assert ended.value.outcome is txn.outcome is handfast.Outcome.HEURISTIC_MIXED
        assert ended.value.branches[0].outcome is handfast.Outcome.HEURISTIC_ROLLBACK


async def test_a_heuristic_commit_against_a_rollback_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    async with connected() as (coordinator, tm):
        answer = wire.RollbackResponse(outcome=types_pb2.OUTCOME_HEURISTIC_COMMIT)
        coordinator.will_answer(wire.RollbackRequest, answer, answer)
        with caplog.at_level(logging.ERROR), pytest.raises(ZeroDivisionError) as raised:
            async with tm.transaction():
                raise ZeroDivisionError
        assert "HEURISTIC_COMMIT" in raised.value.__notes__[0]
        assert "HEURISTIC_COMMIT" in caplog.text
        with pytest.raises(handfast.HeuristicOutcome):
            async with tm.transaction() as txn:
                await txn.rollback()


async def test_branches_that_have_not_applied_yet_are_named() -> None:
    pending = types_pb2.Branch(bqual="ledger.7hx2k9qd", state=types_pb2.BRANCH_STATE_IN_DOUBT, attempts=3)
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, committed(branches=[pending]))
        async with tm.transaction() as txn:
            before = txn.pending
        assert before == ()
        assert txn.outcome is handfast.Outcome.COMMITTED
        assert [(branch.bqual, branch.attempts) for branch in txn.pending] == [("ledger.7hx2k9qd", 3)]


async def test_committing_again_gives_the_first_answer_without_asking() -> None:
    async with connected() as (coordinator, tm):
        async with tm.transaction() as txn:
            await txn.commit()
            await txn.commit()
        assert len(coordinator.asked()) == 1


async def test_an_abort_is_told_to_everyone_who_commits() -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, said_no("a.b", "DEADLOCK", "deadlock detected"))
        with pytest.raises(handfast.TransactionAborted):
            async with tm.transaction() as txn:
                await txn.commit()
        with pytest.raises(handfast.TransactionAborted, match="deadlock detected"):
            await txn.commit()
        assert len(coordinator.asked()) == 1


async def test_two_tasks_that_commit_at_once_ask_once() -> None:
    async with connected() as (coordinator, tm):
        async with tm.transaction() as txn:
            await asyncio.gather(txn.commit(), txn.commit())
        assert len(coordinator.asked()) == 1


async def test_a_rolled_back_transaction_leaves_its_block_quietly_and_commits_no_more() -> None:
    async with connected() as (coordinator, tm):
        async with tm.transaction() as txn:
            await txn.rollback("changed my mind")
            await txn.rollback()
        assert txn.outcome is handfast.Outcome.ABORTED
        assert coordinator.asked() == [wire.RollbackRequest(gtrid=txn.gtrid, reason="changed my mind")]
        with pytest.raises(handfast.TransactionAborted, match="changed my mind") as aborted:
            await txn.commit()
        assert aborted.value.cause is handfast.AbortCause.CLIENT


async def test_a_committed_transaction_is_not_rolled_back() -> None:
    async with connected() as (coordinator, tm):
        async with tm.transaction() as txn:
            pass
        with pytest.raises(handfast.AlreadyDecided, match="can't roll back: it is COMMITTED"):
            await txn.rollback()
        assert len(coordinator.asked()) == 1


async def test_an_exception_after_an_explicit_commit_does_not_ask_for_a_rollback() -> None:
    async with connected() as (coordinator, tm):
        txn = tm.transaction()

        async def work() -> None:
            async with txn:
                await txn.commit()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()
        assert txn.outcome is handfast.Outcome.COMMITTED
        assert coordinator.asked(wire.RollbackRequest) == []


async def test_a_cancelled_block_rolls_back() -> None:
    async with connected() as (coordinator, tm):
        entered = asyncio.Event()

        async def work() -> None:
            async with tm.transaction():
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [type(request) for request in coordinator.asked()] == [wire.RollbackRequest]


async def test_a_commit_that_was_cancelled_can_be_repeated() -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.CommitRequest, coordinator.keep_waiting)
        async with tm.transaction() as txn:
            impatient = asyncio.create_task(txn.commit())
            await eventually(lambda: len(coordinator.asked()) == 1)
            impatient.cancel()
            await asyncio.gather(impatient, return_exceptions=True)
        assert txn.outcome is handfast.Outcome.COMMITTED
        assert [type(request) for request in coordinator.asked()] == [wire.CommitRequest] * 2


async def test_the_transaction_is_ambient_inside_its_block_only() -> None:
    async with connected() as (_, tm):
        assert handfast.current_transaction() is None
        async with tm.transaction(timeout=5) as txn:
            assert handfast.current_transaction() == txn.context
            assert 4 < txn.context.time_left_s() <= 5
        assert handfast.current_transaction() is None


async def test_tasks_that_run_at_the_same_time_each_have_their_own_transaction() -> None:
    async with connected() as (_, tm):
        everyone_is_in = asyncio.Barrier(8)

        async def work() -> tuple[str, str]:
            async with tm.transaction() as txn:
                await everyone_is_in.wait()
                current = handfast.current_transaction()
                return txn.gtrid, current.gtrid if current else ""

        pairs = await asyncio.gather(*(work() for _ in range(8)))
        assert all(own == ambient for own, ambient in pairs)
        assert len({own for own, _ in pairs}) == 8


async def test_a_task_started_in_the_block_belongs_to_the_transaction() -> None:
    async with connected() as (_, tm):
        async with tm.transaction() as txn:

            async def look() -> handfast.TransactionContext | None:
                return handfast.current_transaction()

            assert await asyncio.create_task(look()) == txn.context


async def test_a_block_inside_a_block_is_a_transaction_of_its_own() -> None:
    async with connected() as (_, tm):
        outer, inner = tm.transaction(), tm.transaction()

        async def work() -> None:
            async with outer:
                async with inner:
                    assert handfast.current_transaction() == inner.context
                assert handfast.current_transaction() == outer.context
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()
        assert inner.gtrid != outer.gtrid
        assert (inner.outcome, outer.outcome) == (handfast.Outcome.COMMITTED, handfast.Outcome.ABORTED)


async def test_a_block_is_entered_once() -> None:
    async with connected() as (_, tm):
        txn = tm.transaction()
        with pytest.raises(RuntimeError, match="begins where its block is entered"):
            _ = txn.gtrid
        async with txn:
            pass
        with pytest.raises(RuntimeError, match="has begun"):
            await txn.__aenter__()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), 1e9])
async def test_a_timeout_that_makes_no_sense_is_refused_here(timeout: float) -> None:
    async with connected() as (_, tm):
        with pytest.raises(ValueError, match="a timeout is above 0 s"):
            tm.transaction(timeout=timeout)


async def test_the_coordinator_names_the_timeout_that_the_application_did_not() -> None:
    async with connected() as (_, tm):
        async with tm.transaction() as txn:
            assert 29 < txn.context.time_left_s() <= 30


async def test_too_many_transactions_is_told_apart() -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.BeginRequest, HandfastFault("TRANSACTIONS_TOO_MANY", limit=10))
        with pytest.raises(handfast.TooManyTransactions, match="10 open transactions") as refused:
            await tm.transaction().__aenter__()
        assert refused.value.code == "TRANSACTIONS_TOO_MANY"
        assert handfast.current_transaction() is None


async def test_without_a_coordinator_the_block_is_not_entered() -> None:
    async with serving() as coordinator:
        await coordinator.peer.kill()
        async with handfast.connect(coordinator.peer.address) as tm:
            with pytest.raises(handfast.CoordinatorUnavailable, match=coordinator.peer.address):
                await tm.transaction().__aenter__()


async def test_a_way_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"async with handfast\.connect"):
        handfast.connect("localhost:7400").transaction()
