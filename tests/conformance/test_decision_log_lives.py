"""How every decision log begins and ends, what it keeps from one life to the next, and how it fails."""

import pytest

from coordinator.log.records import Identity, LoggedTransaction
from coordinator.log.store import LogBroken, LogRefused
from coordinator.protocol.states import Decision
from tests.conformance.decision_logs import (
    COORDINATOR_ID,
    REFUSED,
    Answers,
    Rig,
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


async def test_the_epoch_grows_at_each_open_and_the_id_stays(closed_rig: Rig) -> None:
    lives = [await closed_rig.store.open(), await closed_rig.reopen(), await closed_rig.reopen()]
    assert lives == [Identity(COORDINATOR_ID, epoch) for epoch in (1, 2, 3)]
    assert closed_rig.ids_made == 1


async def test_the_start_of_each_life_is_kept_and_no_other_has_one(closed_rig: Rig) -> None:
    for closed_rig.now_unix_ms in (500, 300):  # the clock was set back between them
        await closed_rig.store.open()
        await closed_rig.store.close()
    closed_rig.now_unix_ms = 700
    await closed_rig.store.open()
    assert [closed_rig.store.life_started_unix_ms(epoch) for epoch in range(5)] == [None, 500, 300, 700, None]


async def test_a_log_is_not_opened_twice(rig: Rig) -> None:
    with pytest.raises(RuntimeError, match="open already"):
        await rig.store.open()
    assert await decide(rig.store, commit(1)) is Decision.COMMIT


async def test_everything_outlives_a_life(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    await decide(rig.store, commit(2))
    await end(rig.store, ended(1))
    await register(rig.store, participant("ledger", "a", "h:1"))
    about = gtrid(1)
    rig.store.record_resolution(resolution(about), lambda _: None)
    await rig.reopen()
    assert rig.store.lookup(gtrid(1)) == LoggedTransaction(commit(1), ended(1))
    assert [known.decision for known in rig.store.unended()] == [commit(2)]
    assert rig.store.participants() == [participant("ledger", "a", "h:1")]
    assert rig.store.resolutions(about) == [resolution(about)]


async def test_closing_writes_what_was_submitted_and_answers_it_first(rig: Rig) -> None:
    answers = Answers()
    await decide(rig.store, commit(1))
    rig.store.decide(commit(2), answers.to("decided"))
    rig.store.end(ended(1), answers.to("ended"))
    await rig.store.close()
    assert answers.heard == [("decided", Decision.COMMIT), ("ended", None)]
    await rig.store.open()
    assert [known.decision for known in rig.store.unended()] == [commit(2)]


async def test_closing_again_does_nothing(closed_rig: Rig) -> None:
    await closed_rig.store.close()
    await closed_rig.store.open()
    await closed_rig.store.close()
    await closed_rig.store.close()
    assert await closed_rig.store.open() == Identity(COORDINATOR_ID, 2)


async def test_a_closed_log_takes_nothing_and_shows_nothing(rig: Rig) -> None:
    await rig.store.close()
    answers = Answers()
    rig.store.decide(commit(1), answers.to(1))
    await eventually(lambda: answers.heard != [])
    assert isinstance(answers.values()[0], LogBroken)
    with pytest.raises(LogBroken, match="closed"):
        rig.store.lookup(gtrid(1))
    assert rig.broken == []


async def test_counters_count_since_open(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    await end(rig.store, ended(1))
    assert rig.store.counters() == {"forces": 2, "decisions": 1, "ends": 1, "records": 3}
    await rig.reopen()
    assert rig.store.counters() == {"forces": 0, "decisions": 0, "ends": 0, "records": 0}


async def test_a_participant_replaces_its_earlier_self_and_whoever_had_its_address(rig: Rig) -> None:
    await register(rig.store, participant("ledger", "a", "h:1", registered_unix_ms=1))
    await register(rig.store, participant("ledger", "b", "h:2", registered_unix_ms=2))
    await register(rig.store, participant("stock", "c", "h:2", registered_unix_ms=3))
    await register(rig.store, participant("ledger", "a", "h:3", registered_unix_ms=4))
    await register(rig.store, participant("ledger", "d", "h:2", registered_unix_ms=5))
    assert rig.store.participants() == [
        participant("ledger", "d", "h:2", registered_unix_ms=5),
        participant("ledger", "a", "h:3", registered_unix_ms=4),
        participant("stock", "c", "h:2", registered_unix_ms=3),
    ]


async def test_resolutions_come_oldest_first_and_stay_when_the_transaction_goes(rig: Rig) -> None:
    about = gtrid(1)
    await decide(rig.store, commit(1))
    for reason in ("first", "second"):
        rig.store.record_resolution(resolution(about, reason=reason), lambda _: None)
    rig.store.record_resolution(resolution(gtrid(2)), lambda _: None)
    await end(rig.store, ended(1))
    rig.store.forget(about, lambda _: None)
    await flush(rig.store)
    assert [one.reason for one in rig.store.resolutions(about)] == ["first", "second"]


async def test_a_refused_force_refuses_its_whole_batch_and_the_log_goes_on(rig: Rig) -> None:
    answers = Answers()
    rig.failures = [REFUSED, REFUSED]
    rig.hold()
    for number in range(3):
        rig.store.decide(commit(number), answers.to(number))
    rig.release()
    await eventually(lambda: len(answers.heard) == 3)
    refused = [number for number, value in answers.heard if isinstance(value, LogRefused)]
    assert refused[0] == 0
    assert rig.store.unended() == []
    assert rig.broken == []
    rig.failures = []
    assert await decide(rig.store, commit(0)) is Decision.COMMIT


async def test_a_refused_end_that_nobody_waits_for_goes_with_the_next_force(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    answers = Answers()
    rig.failures = [REFUSED]
    rig.store.end(ended(1))
    rig.store.register(participant("ledger", "a", "h:1"), answers.to("register"))
    await eventually(lambda: answers.heard != [])
    assert isinstance(answers.values()[0], LogRefused)
    await decide(rig.store, commit(3))
    assert [known.decision for known in rig.store.unended()] == [commit(3)]


async def test_any_other_failure_breaks_the_log_for_everyone_who_waits(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    answers = Answers()
    rig.failures = [OSError("fsync failed")]
    rig.hold()
    rig.store.decide(commit(2), answers.to(2))
    await eventually(rig.holds_a_force)
    rig.store.end(ended(1), answers.to("end"))
    rig.store.decide(commit(3), answers.to(3))
    rig.release()
    await eventually(lambda: rig.broken != [])
    assert answers.labels() == [2, "end", 3]
    assert {type(value) for value in answers.values()} == {LogBroken}
    assert "fsync failed" in str(rig.broken[0])


async def test_a_broken_log_says_so_once_and_takes_nothing_more(rig: Rig) -> None:
    answers = Answers()
    rig.failures = [OSError("fsync failed")]
    rig.store.decide(commit(1), answers.to(1))
    await eventually(lambda: rig.broken != [])
    rig.store.decide(commit(2), answers.to(2))
    await eventually(lambda: len(answers.heard) == 2)
    assert {type(value) for value in answers.values()} == {LogBroken}
    with pytest.raises(LogBroken, match="fsync failed"):
        rig.store.recent(0)
    assert len(rig.broken) == 1


async def test_a_broken_log_can_be_closed_and_recovered(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    rig.failures = [OSError("fsync failed")]
    rig.store.decide(commit(2), lambda _: None)
    await eventually(lambda: rig.broken != [])
    assert await rig.reopen() == Identity(COORDINATOR_ID, 2)
    assert rig.store.lookup(gtrid(1)) == LoggedTransaction(commit(1), None)
