"""What every decision log may forget, and what it must say about what it has forgotten."""

from functools import partial

from coordinator.log.store import LogRefused
from coordinator.log.submitting import DROPPED_PER_FORCE_MAX
from coordinator.protocol.states import Decision
from tests.conformance.decision_logs import (
    DAY_MS,
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
)
from tests.waiting import eventually


async def forget_before(rig: Rig, horizon_unix_ms: int) -> object:
    return await answer_of(partial(rig.store.forget_before, horizon_unix_ms))


async def forget(rig: Rig, number: int) -> object:
    return await answer_of(partial(rig.store.forget, gtrid(number)))


async def test_only_what_ended_before_the_horizon_is_dropped(rig: Rig) -> None:
    for number in (1, 2, 3, 4):
        await decide(rig.store, commit(number))
    await end(rig.store, ended(1, at_unix_ms=DAY_MS - 1))
    await end(rig.store, ended(2, at_unix_ms=DAY_MS))
    await end(rig.store, ended(3, at_unix_ms=DAY_MS - 2))
    assert await forget_before(rig, DAY_MS) == 2
    assert [known.decision for known in rig.store.recent(0)] == [commit(4), commit(2)]
    assert rig.store.lookup(gtrid(1)) is None


async def test_what_has_not_ended_is_never_dropped(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    assert await forget_before(rig, 2**52) == 0
    assert [known.decision for known in rig.store.unended()] == [commit(1)]


async def test_a_new_log_has_dropped_nothing(rig: Rig) -> None:
    assert rig.store.horizon_unix_ms == 0


async def test_the_horizon_is_never_lowered_and_outlives_the_process(rig: Rig) -> None:
    await forget_before(rig, DAY_MS)
    await forget_before(rig, DAY_MS - 1)
    assert rig.store.horizon_unix_ms == DAY_MS
    await rig.reopen()
    assert rig.store.horizon_unix_ms == DAY_MS


async def test_the_horizon_is_raised_before_the_first_record_is_missing(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    await end(rig.store, ended(1))
    seen_before_force: list[int] = []
    rig.watch = lambda: seen_before_force.append(rig.store.horizon_unix_ms)
    assert await forget_before(rig, DAY_MS) == 1
    assert seen_before_force == [0, DAY_MS]  # one force raises it; the one that drops finds it raised


async def test_many_are_dropped_in_steps_that_let_others_pass(rig: Rig) -> None:
    old = 2 * DROPPED_PER_FORCE_MAX + 1
    for number in range(old):
        rig.store.decide(commit(number), lambda _: None)
    await flush(rig.store)
    for number in range(old):
        rig.store.end(ended(number))
    await flush(rig.store)
    forces_before = len(rig.forces)
    answers = Answers()
    rig.store.forget_before(DAY_MS, answers.to("dropped"))
    rig.store.decide(commit(old), answers.to("decided"))
    await eventually(lambda: len(answers.heard) == 2)
    assert answers.heard == [("decided", Decision.COMMIT), ("dropped", old)]
    assert len(rig.forces) - forces_before >= 4  # one to raise the horizon, three steps
    assert [known.decision for known in rig.store.recent(0)] == [commit(old)]


async def test_closing_ends_the_dropping_between_two_steps(rig: Rig) -> None:
    old = 3 * DROPPED_PER_FORCE_MAX
    for number in range(old):
        rig.store.decide(commit(number), lambda _: None)
    await flush(rig.store)
    for number in range(old):
        rig.store.end(ended(number))
    await flush(rig.store)
    answers = Answers()
    rig.store.forget_before(DAY_MS, answers.to("dropped"))
    await rig.store.close()
    ((_, dropped),) = answers.heard
    assert isinstance(dropped, int)
    await rig.store.open()
    assert rig.store.horizon_unix_ms == DAY_MS
    assert len(rig.store.recent(0)) == old - dropped > 0
    assert await forget_before(rig, DAY_MS) == old - dropped


async def test_forgetting_is_refused_while_some_branch_may_need_the_decision(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    refused = await forget(rig, 1)
    assert isinstance(refused, LogRefused)
    assert gtrid(1) in str(refused)
    assert rig.store.lookup(gtrid(1)) is not None


async def test_forgetting_the_unknown_is_refused(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    await end(rig.store, ended(1))
    assert isinstance(await forget(rig, 2), LogRefused)
    assert await forget(rig, 1) is None
    assert isinstance(await forget(rig, 1), LogRefused)


async def test_a_forgotten_transaction_is_not_shown_but_known_to_have_been(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    await end(rig.store, ended(1))
    assert not rig.store.was_forgotten(gtrid(1))
    assert await forget(rig, 1) is None
    await rig.reopen()
    assert (rig.store.lookup(gtrid(1)), rig.store.recent(0), rig.store.unended()) == (None, [], [])
    assert rig.store.was_forgotten(gtrid(1))
    assert not rig.store.was_forgotten(gtrid(2))


async def test_a_forgotten_commit_can_t_be_decided_again(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    await end(rig.store, ended(1))
    await forget(rig, 1)
    assert await decide(rig.store, abort(1)) is Decision.COMMIT


async def test_retention_removes_the_last_trace_of_a_forgotten_transaction(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    await end(rig.store, ended(1))
    await forget(rig, 1)
    assert await forget_before(rig, DAY_MS) == 1
    assert not rig.store.was_forgotten(gtrid(1))
