"""Bugs that others shipped, each with the tests here that would have found it.

The table is an index: where a bug is one of a part, its tests stand with that part, and name the bug. What only the
whole shows is tested in this folder. The last test holds the index to the tests that there are.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import handfast
from chaos.bank_stack import BankStack
from chaos.stack import Stack, wait_until
from examples.bank.client import Bank, credit_request, withdraw_request
from examples.bank.v1.accounts_pb2 import WithdrawRequest
from handfast.v1 import types_pb2 as t
from tests.integration.e2e.bank_world import (
    client_of,
    moved,
    next_payment,
    off_loop,
    restart_coordinator_only,
    restart_service,
    wait_prepared,
    write_same_rows,
)
from tests.integration.e2e.processes import REPOSITORY, Coordinator
from tests.integration.e2e.shops import Shops

E2E = "tests/integration/e2e"
HERE = f"{E2E}/test_bugs_others_shipped.py"
KILLED = f"{E2E}/test_participant_killed.py"
RUNTIME = "tests/unit/runtime"
EDGE = "tests/integration/coordinator"
SDK = "tests/integration/participant"

# What went wrong, where it was seen, and the tests.
INDEX: dict[str, tuple[str, ...]] = {
    "recovery rolls back transactions that are just being prepared (citus 1030, 2095)": (
        f"{HERE}::test_sweeping_all_the_time_rolls_back_nothing_that_is_alive",
        f"{RUNTIME}/test_recovery.py::test_a_transaction_that_is_just_being_prepared_is_left_alone",
        f"{RUNTIME}/test_recovery.py::test_one_that_begins_and_prepares_while_the_database_is_being_asked_is_left_alone",
    ),
    "a PREPARE that lands after the recovery scan stays as an orphan (greenplum 10393)": (
        f"{HERE}::test_a_prepare_that_lands_after_the_recovery_is_rolled_back",
        f"{RUNTIME}/test_recovery.py::test_a_prepare_that_lands_after_the_scan_is_swept_by_the_next",
    ),
    "a branch finished in the wrong database stalls recovery (citus 6548)": (
        f"{E2E}/test_foreign_branches.py::test_branches_of_others_survive_restarts_recovery_and_sweeps",
        f"{RUNTIME}/test_recovery.py::test_a_branch_that_a_wrong_resource_lists_is_not_touched_there",
        f"{SDK}/test_postgres_finish.py::test_a_branch_in_another_database_is_an_error_not_an_end",
    ),
    "finished log rows are never cleaned up (citus 1614)": (
        "tests/conformance/test_decision_log_retention.py::test_only_what_ended_before_the_horizon_is_dropped",
        f"{RUNTIME}/test_recovery.py::test_an_abort_record_without_an_end_is_ended_so_that_it_can_be_cleaned_up",
    ),
    "commit reported while a branch is still prepared (citus 3780)": (
        f"{HERE}::test_when_a_commit_is_reported_no_branch_is_prepared_any_more",
        f"{RUNTIME}/test_driver_commit.py::test_commit_is_answered_when_every_branch_has_applied_it",
        "tests/unit/protocol/test_every_state.py::test_in_every_state",
    ),
    "a node that inherits another's identity rolls back its commits (citus 8855)": (
        f"{E2E}/test_bad_input.py::test_a_log_of_another_coordinator_is_refused",
        f"{E2E}/test_foreign_branches.py::test_the_sweep_alone_leaves_them_too",
        f"{RUNTIME}/test_standing.py::test_a_name_from_a_later_epoch_is_unknown",
    ),
    "the console says committed, it rolled back: a swallowed timeout (seata 7975)": (
        f"{HERE}::test_the_report_of_a_transaction_that_timed_out_says_what_the_databases_say",
        f"{RUNTIME}/test_driver_commit.py::test_the_apply_wait_is_bounded_and_names_what_is_pending",
    ),
    "a timed-out branch's connection goes back to the pool (seata 6492)": (
        f"{SDK}/test_messages.py::test_the_deadline_frees_the_connection_even_under_its_work",
        f"{SDK}/test_postgres_branch.py::test_abandoning_too_late_leaves_the_next_user_of_the_connection_alone",
        f"{E2E}/test_hot_rows.py::test_two_hundred_one_shot_transactions_on_ten_hot_rows_end_cleanly",
    ),
    "a retry timeout drops the transaction and its locks stay (seata 2166)": (
        f"{KILLED}::test_a_participant_killed_at_any_point_loses_nothing",
        f"{RUNTIME}/test_retries.py::test_a_commit_is_retried_with_a_growing_capped_wait_and_never_given_up",
    ),
    "retry and decision run together (seata 7004)": (
        f"{RUNTIME}/test_retries.py::test_no_two_messages_to_one_branch_are_under_way_because_a_timer_fired",
        f"{RUNTIME}/test_recovery.py::test_retry_and_sweep_do_not_run_together",
    ),
    "backoff with no cap: next retry in 1.5 h after a 3 h outage (dtm 143)": (
        f"{RUNTIME}/test_retries.py::test_a_commit_is_retried_with_a_growing_capped_wait_and_never_given_up",
        f"{RUNTIME}/test_recovery.py::test_a_participant_that_comes_back_gets_at_once_what_waits_for_it",
    ),
    'COMMIT PREPARED "does not exist" taken as success (dtm, by reading)': (
        f"{SDK}/test_postgres_finish.py::test_a_branch_that_is_gone_is_answered_by_proof",
        f"{E2E}/test_messages.py::test_a_participant_told_to_commit_what_it_never_saw_calls_it_a_hazard",
    ),
    "a failed log write swallowed, the record gone (atomikos, by reading)": (
        f"{RUNTIME}/test_driver_trouble.py::test_a_refused_record_is_an_abort_and_the_log_goes_on",
        f"{RUNTIME}/test_driver_trouble.py::test_a_broken_log_stops_the_coordinator_and_nothing_is_sent_or_said",
    ),
    "a connection lost after PREPARE reported as a definite failure (pgjdbc 4438)": (
        f"{KILLED}::test_postgres_stopped_at_once_after_prepare_and_before_the_vote_loses_nothing",
        f"{KILLED}::test_the_only_participant_killed_during_its_commit_leaves_no_guess",
        f"{SDK}/test_postgres_lost.py::test_a_prepare_whose_answer_is_lost_is_yes_when_it_was_done",
    ),
    "a prepare/rollback race leaves a prepared branch (vitess 20647)": (
        f"{E2E}/test_messages.py::test_a_rollback_that_overtakes_its_prepare_makes_the_late_prepare_vote_no",
        f"{SDK}/test_messages.py::test_a_rollback_during_prepare_leaves_nothing_prepared",
    ),
    "one bad transaction blocks start-up (btm 59)": (
        f"{RUNTIME}/test_recovery.py::test_one_bad_transaction_does_not_block_the_start",
        f"{RUNTIME}/test_driver_trouble.py::test_one_transaction_with_a_defect_is_set_aside_and_the_others_go_on",
    ),
    "two coordinators on one log (narayana 3048)": (
        f"{E2E}/test_bad_input.py::test_a_second_coordinator_on_the_same_log_is_refused",
        "tests/unit/log/test_sqlite_processes.py::test_a_second_process_on_the_log_is_refused_and_told_who_has_it",
    ),
}


# -- what only the whole shows -----------------------------------------------------------------------------------------


@pytest.fixture
def sweeping_coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    """A coordinator that does nothing but sweep, as far as it can."""
    with Stack() as stack:
        yield stack.start(Coordinator(tmp_path, "--sweep-interval-s", "0.01"))


@pytest.fixture
async def swept_shops(sweeping_coordinator: Coordinator, shop_databases: Shops) -> AsyncIterator[Shops]:
    async with shop_databases.at(sweeping_coordinator.address) as shops:
        yield shops


async def test_sweeping_all_the_time_rolls_back_nothing_that_is_alive(
    swept_shops: Shops, sweeping_coordinator: Coordinator
) -> None:
    await swept_shops.open("shop-1", "shop-2")

    async def withdraw(number: int) -> None:
        payload = WithdrawRequest(account=number % 20 + 1, amount=1, transfer=f"t-{number}").SerializeToString()
        await swept_shops.tm.execute([("shop-1", "withdraw", payload), ("shop-2", "withdraw", payload)], timeout=20)

    for round_number in range(10):
        await asyncio.gather(*(withdraw(round_number * 20 + number) for number in range(20)))
    counters = (await off_loop(sweeping_coordinator.admin.status)).counters
    assert (counters["committed"], counters["swept_orphans"]) == (200, 0)


async def test_a_prepare_that_lands_after_the_recovery_is_rolled_back(bank: BankStack) -> None:
    await off_loop(restart_service, bank, "ledger", "before-prepare=stop")
    payment = next_payment()
    async with client_of(bank, timeout=6) as client:
        paying = asyncio.create_task(client.pay(payment))
        ledger = bank.service("ledger")
        await off_loop(wait_until, lambda: ledger.paused, 10, "the ledger was not asked to prepare")
        await off_loop(wait_prepared, bank, 1)
        await off_loop(restart_coordinator_only, bank)
        await off_loop(wait_prepared, bank, 0)  # recovery has been by
        ledger.resume()
        with pytest.raises(handfast.TransactionAborted):
            await paying
    await off_loop(bank.wait_nothing_prepared, 10)
    await off_loop(write_same_rows, bank, payment)
    assert not await off_loop(moved, bank, payment)


async def test_when_a_commit_is_reported_no_branch_is_prepared_any_more(bank: BankStack, client: Bank) -> None:
    for number in range(20):
        gtrid = await (client.pay if number % 2 else client.pay_at_once)(next_payment())
        assert [branch.gid for branch in await off_loop(bank.prepared) if gtrid in branch.gid] == []


async def test_the_report_of_a_transaction_that_timed_out_says_what_the_databases_say(
    bank: BankStack, client: Bank
) -> None:
    payment = next_payment()
    txn = client.tm.transaction(timeout=0.5)

    async def work() -> None:
        async with txn:
            await client.accounts.Withdraw(withdraw_request(payment))
            await client.ledger.Credit(credit_request(payment))
            await off_loop(write_same_rows, bank, payment)  # until the deadline has rolled the branches back

    with pytest.raises(handfast.DeadlineExceeded):
        await work()
    shown = await off_loop(bank.admin.transaction, txn.gtrid)
    assert (shown.outcome, shown.cause) == (t.OUTCOME_ABORTED, t.ABORT_CAUSE_DEADLINE)
    assert not await off_loop(moved, bank, payment)


# -- the index ---------------------------------------------------------------------------------------------------------


def test_every_bug_has_tests() -> None:
    assert len(INDEX) == 17
    assert all(INDEX.values())


def test_the_tests_in_the_index_are_collected() -> None:
    wanted = {test for tests in INDEX.values() for test in tests}
    files = sorted({test.partition("::")[0] for test in wanted})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    collected = {line.partition("[")[0] for line in answer.stdout.splitlines() if "::" in line}
    assert wanted - collected == set(), answer.stdout[-500:] + answer.stderr[-500:]
