"""Every decision log is a write-once register that shows what is durable and nothing else."""

import asyncio
import threading
from dataclasses import replace
from functools import partial
from typing import Any

from coordinator.log.records import EndRecord, LoggedBranch, LoggedTransaction
from coordinator.protocol.states import Decision, Outcome
from tests.conformance.decision_logs import (
    Answers,
    Rig,
    abort,
    answer_of,
    commit,
    decide,
    end,
    ended,
    flush,
    gtrid,
    participant,
    register,
    resolution,
)
from tests.waiting import eventually


async def test_the_first_decision_stands_and_the_second_offer_learns_it(rig: Rig) -> None:
    assert await decide(rig.store, commit(1)) is Decision.COMMIT
    assert await decide(rig.store, abort(1)) is Decision.COMMIT
    assert await decide(rig.store, abort(2)) is Decision.ABORT
    assert await decide(rig.store, commit(2)) is Decision.ABORT


async def test_the_losing_offer_leaves_no_trace(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    await decide(rig.store, replace(abort(1), client="another", branches=()))
    assert rig.store.lookup(gtrid(1)) == LoggedTransaction(commit(1), None)
    assert rig.store.counters()["decisions"] == 1


async def test_of_two_offers_in_one_batch_the_first_stands(rig: Rig) -> None:
    answers = Answers()
    rig.hold()
    rig.store.decide(commit(0), answers.to(0))  # may be a batch of its own; the rest gathers behind it
    for label, record in [("first", abort(1)), ("other", commit(2)), ("second", commit(1))]:
        rig.store.decide(record, answers.to(label))
    rig.release()
    await eventually(lambda: len(answers.heard) == 4)
    assert answers.heard[1:] == [("first", Decision.ABORT), ("other", Decision.COMMIT), ("second", Decision.ABORT)]
    assert rig.store.counters()["decisions"] == 3


async def test_what_is_not_durable_is_not_seen(rig: Rig) -> None:
    answers = Answers()
    rig.hold()
    rig.store.decide(commit(1), answers.to(1))
    assert (rig.store.lookup(gtrid(1)), rig.store.unended(), rig.store.recent(0)) == (None, [], [])
    assert answers.heard == []
    rig.release()
    await eventually(lambda: answers.heard != [])
    assert rig.store.lookup(gtrid(1)) == LoggedTransaction(commit(1), None)


async def test_every_answered_decision_can_be_read_in_its_own_callback(rig: Rig) -> None:
    seen: list[LoggedTransaction | None] = []

    def look(number: int, _: object) -> None:
        seen.append(rig.store.lookup(gtrid(number)))

    for number in range(100):
        rig.store.decide(commit(number), partial(look, number))
    await eventually(lambda: len(seen) == 100)
    assert seen == [LoggedTransaction(commit(number), None) for number in range(100)]


async def test_a_decision_is_read_back_as_it_was_offered(rig: Rig) -> None:
    branches = (LoggedBranch("a.1", "line\nbreak\0and'quote\""), LoggedBranch("b.2", ""), LoggedBranch("c.3", "Ł😀"))
    record = replace(abort(1), branches=branches, client="Zoë\0\n", begun_unix_ms=5, decided_unix_ms=2**52)
    evidence = EndRecord(gtrid(1), Outcome.HEURISTIC_MIXED, 2**53, "a.1: pg_xact_status 77 = committed\nŁ")
    await decide(rig.store, record)
    await end(rig.store, evidence)
    assert rig.store.lookup(gtrid(1)) == LoggedTransaction(record, evidence)


async def test_callbacks_run_in_the_order_of_submission_whatever_was_submitted(rig: Rig) -> None:
    answers = Answers()
    await decide(rig.store, commit(1))
    rig.hold()
    rig.store.decide(commit(2), answers.to(0))
    rig.store.end(ended(1), answers.to(1))
    rig.store.register(participant("ledger", "a", "h:1"), answers.to(2))
    rig.store.decide(commit(3), answers.to(3))
    rig.store.record_resolution(resolution(gtrid(1)), answers.to(4))
    rig.store.end(ended(3), answers.to(5))
    rig.store.forget(gtrid(1), answers.to(6))
    rig.store.decide(abort(2), answers.to(7))
    rig.release()
    await eventually(lambda: len(answers.heard) == 8)
    assert answers.labels() == list(range(8))
    assert answers.values() == [Decision.COMMIT, None, None, Decision.COMMIT, None, None, None, Decision.COMMIT]


async def test_callbacks_run_on_the_loop_s_thread(rig: Rig) -> None:
    threads: list[int] = []
    rig.store.decide(commit(1), lambda _: threads.append(threading.get_ident()))
    await eventually(lambda: threads != [])
    assert threads == [threading.get_ident()]


async def test_a_callback_never_runs_inside_the_call_that_submits(rig: Rig) -> None:
    answers = Answers()
    rig.store.decide(commit(1), answers.to(1))
    assert answers.heard == []
    await eventually(lambda: answers.heard != [])


async def test_a_callback_that_fails_is_reported_with_its_gtrid_and_stops_nobody(rig: Rig) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    answers = Answers()

    def fail(_: object) -> None:
        raise ValueError("of the callback")

    rig.hold()
    rig.store.decide(commit(1), fail)
    rig.store.decide(commit(2), answers.to(2))
    rig.release()
    await eventually(lambda: answers.heard != [])
    assert answers.heard == [(2, Decision.COMMIT)]
    assert [str(context["exception"]) for context in reported] == ["of the callback"]
    assert gtrid(1) in reported[0]["message"]


async def test_ten_thousand_decisions_need_two_forces(rig: Rig) -> None:
    answers = Answers()
    rig.hold()
    for number in range(10_000):
        rig.store.decide(commit(number), answers.to(number))
    rig.release()
    await eventually(lambda: len(answers.heard) == 10_000)
    counted = rig.store.counters()
    assert counted["forces"] == len(rig.forces) <= 2  # one for what came before the disk was held up, one for the rest
    assert (counted["decisions"], counted["records"], sum(rig.forces)) == (10_000, 10_000, 10_000)
    assert answers.labels() == list(range(10_000))


async def test_an_end_completes_its_transaction(rig: Rig) -> None:
    for number in (1, 2, 3):
        await decide(rig.store, commit(number))
    await end(rig.store, ended(2, at_unix_ms=9))
    assert rig.store.lookup(gtrid(2)) == LoggedTransaction(commit(2), ended(2, at_unix_ms=9))
    assert [known.decision.gtrid for known in rig.store.unended()] == [gtrid(1), gtrid(3)]
    assert rig.store.counters()["ends"] == 1


async def test_the_first_end_stands(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    await end(rig.store, ended(1, outcome=Outcome.HEURISTIC_MIXED))
    await end(rig.store, ended(1, outcome=Outcome.COMMITTED))
    found = rig.store.lookup(gtrid(1))
    assert found is not None
    assert found.end == ended(1, outcome=Outcome.HEURISTIC_MIXED)
    assert rig.store.counters()["ends"] == 1


async def test_an_end_without_a_decision_has_no_effect(rig: Rig) -> None:
    answers = Answers()
    rig.store.end(ended(1), answers.to(1))
    await flush(rig.store)
    assert answers.heard == [(1, None)]
    assert (rig.store.lookup(gtrid(1)), rig.store.unended(), rig.store.counters()["ends"]) == (None, [], 0)


async def test_an_end_waits_for_a_force_to_travel_with(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    forces_before = len(rig.forces)
    answers = Answers()
    rig.store.end(ended(1), answers.to("end"))
    await register(rig.store, participant("ledger", "a", "h:1"))
    assert answers.heard == [("end", None)]
    assert rig.forces[forces_before:] == [2]


async def test_an_end_alone_is_forced_after_a_while(closed_rig: Rig) -> None:
    closed_rig.use_lazy_flush_s(0.02)
    await closed_rig.store.open()
    await decide(closed_rig.store, commit(1))
    closed_rig.store.end(ended(1))
    await eventually(lambda: closed_rig.store.unended() == [])
    assert closed_rig.forces == [1, 1]


async def test_what_has_not_ended_comes_oldest_first(rig: Rig) -> None:
    for number in (5, 3, 9, 1):
        await decide(rig.store, commit(number))
    assert [known.decision for known in rig.store.unended()] == [commit(5), commit(3), commit(9), commit(1)]


async def test_recent_transactions_come_newest_first_and_no_more_than_asked(rig: Rig) -> None:
    for number in (1, 2, 3, 4):
        await decide(rig.store, commit(number))
    await end(rig.store, ended(3))
    assert [known.decision for known in rig.store.recent(0)] == [commit(4), commit(3), commit(2), commit(1)]
    assert rig.store.recent(2) == [LoggedTransaction(commit(4), None), LoggedTransaction(commit(3), ended(3))]
    assert [known.decision for known in rig.store.recent(0, since_unix_ms=3)] == [commit(4), commit(3)]
    assert [known.decision for known in rig.store.recent(1, since_unix_ms=3)] == [commit(4)]


async def test_a_record_that_can_t_be_written_fails_where_it_is_offered(rig: Rig) -> None:
    refused = []
    for call in (
        partial(rig.store.decide, replace(commit(1), client="\ud800")),
        partial(rig.store.register, participant("ledger", "a", "\ud800")),
        partial(rig.store.record_resolution, resolution(gtrid(1), reason="\ud800")),
    ):
        try:
            await answer_of(call)
        except UnicodeEncodeError:
            refused.append(call)
    assert len(refused) == 3
    assert await decide(rig.store, commit(1)) is Decision.COMMIT


async def test_all_transactions_can_be_read_page_by_page(rig: Rig) -> None:
    for number in range(1, 6):
        await decide(rig.store, commit(number))
    pages: list[list[str]] = []
    last = ""
    while page := rig.store.recent(2, before=last):
        pages.append([known.decision.gtrid for known in page])
        last = page[-1].decision.gtrid
    assert pages == [[gtrid(5), gtrid(4)], [gtrid(3), gtrid(2)], [gtrid(1)]]
    assert rig.store.recent(2, before=gtrid(9)) == []
