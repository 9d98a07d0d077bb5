"""What may be asked, and the same answer to whoever asks again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordinator.log.store import LogBroken, LogRefused
from coordinator.protocol.states import Cause, Outcome, TransactionState
from coordinator.runtime.gtrids import Block
from coordinator.runtime.options import DriverOptions
from handfast.catalog import HandfastFault
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from handfast.xid import base36
from tests.unit.runtime.scripted import A, Answers, B, C, Life, forced, participant, start

S = TransactionState


def name(block: Block, number: int) -> str:
    return block.prefix + base36(number)


def fault_of(call: Callable[[], object]) -> HandfastFault:
    with pytest.raises(HandfastFault) as raised:
        call()
    return raised.value


# -- begin and enlist --------------------------------------------------------------------------------------------------


async def test_a_drawn_name_begins_with_the_first_enlist_and_takes_its_timeout() -> None:
    life = await start()
    gtrid = name(life.requests.hand_out(10), 3)
    assert life.driver.find(gtrid) is None
    assert life.requests.enlist(gtrid, "accounts", "a1", 2_000) == A
    assert life.requests.enlist(gtrid, "ledger", "b1", 9_000) == B
    assert life.driver.transactions[gtrid].transaction.deadline_s == life.clock.now_s() + 2.0


async def test_enlist_twice_is_one_branch_also_when_commit_has_begun() -> None:
    """Invariant 8: a duplicate gets the first answer."""
    life = await start()
    gtrid = life.begin(A, B)
    assert life.requests.enlist(gtrid, "accounts", "a1", 0) == A
    life.commit(gtrid)
    assert life.requests.enlist(gtrid, "accounts", "a1", 0) == A
    assert list(life.driver.transactions[gtrid].transaction.branches) == [A, B]


async def test_nobody_enlists_after_commit_began() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    fault = fault_of(lambda: life.requests.enlist(gtrid, "audit", "c1", 0))
    assert fault.code == "TRANSACTION_NOT_ACTIVE"
    assert gtrid in str(fault)


async def test_a_participant_that_is_not_registered_can_not_enlist() -> None:
    life = await start()
    gtrid = life.begin()
    assert fault_of(lambda: life.requests.enlist(gtrid, "accounts", "gone", 0)).code == "RESOURCE_UNKNOWN"
    assert fault_of(lambda: life.requests.enlist(gtrid, "Accounts!", "a1", 0)).code == "NAME_MALFORMED"


async def test_an_expired_or_foreign_or_malformed_name_begins_nothing() -> None:
    life = await start()
    gtrid = name(life.requests.hand_out(10), 3)
    life.clock.advance(600.0)
    foreign, later = gtrid.replace("k3v9q2xw", "another2"), gtrid.replace("-1-", "-2-", 1)
    for asked, code in (
        (gtrid, "TRANSACTION_UNKNOWN"),
        (later, "TRANSACTION_UNKNOWN"),
        (foreign, "TRANSACTION_FOREIGN"),
        ("'; drop table", "GTRID_MALFORMED"),
    ):
        with pytest.raises(HandfastFault) as raised:
            life.requests.enlist(asked, "accounts", "a1", 0)
        assert raised.value.code == code
    assert life.driver.transactions == {}


async def test_there_is_a_limit_to_branches() -> None:
    life = await start(options=DriverOptions(branches_max=2))
    gtrid = life.begin(A, B)
    fault = fault_of(lambda: life.requests.enlist(gtrid, "audit", "c1", 0))
    assert fault.code == "BRANCHES_TOO_MANY"
    operations = [t.Operation(resource=resource, name="x") for resource in ("accounts", "ledger", "audit")]
    assert fault_of(lambda: life.requests.execute("", 0, operations, False, Answers())).code == "BRANCHES_TOO_MANY"


async def test_there_is_a_limit_to_open_transactions_and_what_ends_makes_room() -> None:
    life = await start(options=DriverOptions(open_transactions_max=2))
    first = life.begin(A, B)
    life.begin(A, B)
    drawn = name(life.requests.hand_out(1), 0)
    assert fault_of(lambda: life.begin()).code == "TRANSACTIONS_TOO_MANY"
    assert fault_of(lambda: life.requests.enlist(drawn, "accounts", "a1", 0)).code == "TRANSACTIONS_TOO_MANY"
    life.rollback(first)
    life.rolled_back(A, B)
    assert life.requests.enlist(drawn, "accounts", "a1", 0) == A


async def test_a_timeout_is_taken_within_limits() -> None:
    life = await start(options=DriverOptions(default_timeout_s=30.0, timeout_max_s=60.0))
    assert [life.requests.timeout_s(asked) for asked in (0, 5_000, 4_000_000_000)] == [30.0, 5.0, 60.0]


async def test_a_stopping_coordinator_begins_nothing_and_ends_everything() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    drawn = name(life.requests.hand_out(1), 0)
    life.requests.stopping = True
    assert fault_of(lambda: life.begin()).code == "COORDINATOR_STOPPING"
    assert fault_of(lambda: life.requests.hand_out(10)).code == "COORDINATOR_STOPPING"
    assert fault_of(lambda: life.requests.enlist(drawn, "accounts", "a1", 0)).code == "COORDINATOR_STOPPING"
    answers = life.commit(gtrid)
    life.vote(A, B)
    await forced()
    life.acknowledge(A, B)
    assert answers.only.outcome is Outcome.COMMITTED


# -- commit and rollback twice -----------------------------------------------------------------------------------------


async def test_a_repeated_commit_gets_the_first_answer_at_every_stage() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    asked = [life.commit(gtrid)]
    asked.append(life.commit(gtrid))
    life.vote(A, B)
    asked.append(life.commit(gtrid))
    await forced()
    asked.append(life.commit(gtrid))
    life.acknowledge(A, B)
    asked.append(life.commit(gtrid))
    assert life.transport.calls == []
    assert {answers.only.outcome for answers in asked} == {Outcome.COMMITTED}
    assert life.log.counters()["decisions"] == 1


async def test_committing_and_rolling_back_the_same_gives_one_of_the_two() -> None:
    life = await start()
    gtrid = await life.committed(A, B)
    assert life.rollback(gtrid).fault.code == "ALREADY_DECIDED"
    other = life.begin(A, B)
    life.rollback(other)
    life.rolled_back(A, B)
    answers = life.commit(other)
    assert (answers.only.outcome, answers.only.transaction.cause) == (Outcome.ABORTED, Cause.CLIENT)


async def test_a_rollback_during_the_force_waits_for_what_the_log_says() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.log.hold()
    life.vote(A, B)
    rollback = life.rollback(gtrid)
    assert rollback.told == []
    life.log.release()
    await forced()
    life.acknowledge(A, B)
    assert rollback.fault.code == "ALREADY_DECIDED"


async def test_a_rollback_of_a_name_that_nobody_used_uses_it_up() -> None:
    life = await start()
    gtrid = name(life.requests.hand_out(10), 3)
    assert life.rollback(gtrid).only.outcome is Outcome.ABORTED
    assert fault_of(lambda: life.requests.enlist(gtrid, "accounts", "a1", 0)).code == "TRANSACTION_NOT_ACTIVE"


# -- one shot ----------------------------------------------------------------------------------------------------------


async def test_results_come_in_the_order_of_the_request() -> None:
    life = await start()
    answers = life.execute(("ledger", "one"), ("accounts", "two"), ("ledger", "three"))
    assert life.transport.shown() == [f"Prepare {B}", f"Prepare {A}"]
    life.vote(A, results=[b"2"])
    life.vote(B, results=[b"1", b"3"])
    await forced()
    life.acknowledge(A, B)
    assert answers.only.ordered_results() == [b"1", b"2", b"3"]


async def test_a_branch_that_returns_too_few_results_gives_none_rather_than_wrong_ones() -> None:
    life = await start()
    answers = life.execute(("ledger", "one"), ("accounts", "two"), ("ledger", "three"))
    life.vote(A, results=[b"2"])
    life.vote(B, results=[b"1"])
    await forced()
    life.acknowledge(A, B)
    assert answers.only.ordered_results() == []


async def test_the_same_execute_twice_runs_once_and_gives_the_same_results() -> None:
    life = await start()
    gtrid = name(life.requests.hand_out(10), 3)
    wanted = (("accounts", "withdraw"), ("ledger", "credit"))
    first = life.execute(*wanted, gtrid=gtrid)
    second = life.execute(*wanted, gtrid=gtrid)
    life.vote(A, results=[b"a"])
    life.vote(B, results=[b"b"])
    await forced()
    life.acknowledge(A, B)
    third = life.execute(*wanted, gtrid=gtrid)
    assert life.transport.calls == []
    assert [one.only.ordered_results() for one in (first, second, third)] == [[b"a", b"b"]] * 3


async def test_of_a_name_that_nobody_has_used_the_log_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can have no record of it, and a look costs more than all else that a request does."""
    life = await start()
    asked: list[str] = []
    monkeypatch.setattr(life.log, "lookup", asked.append)
    block = life.requests.hand_out(10)
    life.execute(("accounts", "withdraw"), ("ledger", "credit"), gtrid=name(block, 3))
    life.requests.enlist(name(block, 4), "accounts", "a1", 0)
    life.rollback(name(block, 5))
    assert asked == []
    life.rollback(name(block, 10), branches=2)  # past the block's end
    assert asked == [name(block, 10)]


async def test_execute_under_the_name_of_an_interactive_transaction_is_refused() -> None:
    """Its operations would never run, and its client would be told that they committed."""
    life = await start()
    gtrid = life.begin(A)
    fault = fault_of(lambda: life.execute(("ledger", "credit"), gtrid=gtrid))
    assert (fault.code, life.transport.calls) == ("FIELD_INVALID", [])


async def test_a_bad_one_shot_begins_nothing() -> None:
    life = await start(options=DriverOptions(payload_bytes_max=10))
    gtrid = name(life.requests.hand_out(10), 3)
    too_large = [t.Operation(resource="accounts", name="x", payload=b"x" * 11)]
    nobodys = [t.Operation(resource="nobody", name="x")]
    for operations, code in (
        (too_large, "PAYLOAD_TOO_LARGE"),
        (nobodys, "RESOURCE_UNKNOWN"),
        ([t.Operation(resource="", name="x")], "NAME_MALFORMED"),
        ([], "OPERATIONS_MISSING"),
    ):
        asked = Answers()
        with pytest.raises(HandfastFault) as raised:
            life.requests.execute(gtrid, 0, operations, False, asked)
        assert raised.value.code == code
        assert asked.told == []
    assert life.driver.transactions == {}
    assert life.gtrids.is_claimable(gtrid)


# -- register ----------------------------------------------------------------------------------------------------------


async def test_a_participant_is_known_at_once_and_durable_when_said() -> None:
    life = await start()
    told: list[LogRefused | LogBroken | None] = []
    heard: list[str] = []
    life.requests.on_registered.append(lambda one: heard.append(one.instance))
    life.requests.register(participant("billing.x1"), told.append)
    assert life.directory.knows("billing", "x1")
    assert heard == ["x1"]
    assert told == []
    await forced()
    assert told == [None]
    assert [one.resource for one in life.log.participants()] == ["billing"]


async def test_a_participant_without_an_address_is_refused() -> None:
    life = await start()
    record = participant("billing.x1")
    nowhere = type(record)(record.resource, record.instance, "", "", (), 0)
    assert fault_of(lambda: life.requests.register(nowhere, lambda _: None)).code == "FIELD_INVALID"


def counts(life: Life) -> dict[str, int]:
    return {key: value for key, value in life.driver.counters.items() if value}


async def test_what_happened_is_counted() -> None:
    life = await start()
    await life.committed(A, B)
    life.rollback(life.begin(C))
    life.rolled_back(C)
    life.commit(life.begin(A))
    done = p.CommitOnePhaseResponse(outcome=t.OUTCOME_COMMITTED)
    life.transport.take(A, p.CommitOnePhaseRequest).answer(done)
    assert counts(life) == {"begun": 3, "committed": 2, "aborted": 1, "one_phase": 1}
