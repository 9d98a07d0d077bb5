"""Which rows of a request go together, and which are to be asked for by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from coordinator.protocol.states import Outcome
from coordinator.runtime.options import DriverOptions
from tests.unit.runtime.scripted import A, B, C, Life, RowAnswers, forced, participant, rows_of, start


async def prepared(options: DriverOptions | None = None) -> Life:
    """A coordinator with columns to all participants."""
    life = await start(options=options)
    life.transport.by_columns.update((A, B, C))
    return life


def asked(life: Life, gtrids: Sequence[str], *bquals: str, client: str = "") -> tuple[list[int], RowAnswers]:
    """Ask for a row for each name; which are taken, and where their answers arrive."""
    answers = RowAnswers()
    return list(life.rows.execute(rows_of(gtrids, len(gtrids), *(bquals or (A, B))), answers, client)), answers


def assert_nothing_done(life: Life, answers: RowAnswers) -> None:
    assert (answers.told, len(life.driver.transactions), life.driver.counters["begun"]) == ([], 0, 0)
    assert (life.transport.shown(), life.transport.shown_columns(), life.clock.waiting) == ([], [], 0)


# -- names -------------------------------------------------------------------------------------------------------------


async def test_names_that_were_drawn_make_one_cohort_which_is_the_drawers() -> None:
    life = await prepared()
    taken, _ = asked(life, life.names(4, "billing"), client="somebody else")
    assert taken == [0, 1, 2, 3]
    assert life.transport.shown_columns() == [f"4 Prepare {A}", f"4 Prepare {B}"]
    assert life.driver.open_by_client == {"billing": 4}


async def test_without_names_the_coordinator_chooses_and_the_asker_owns_them() -> None:
    life = await prepared()
    answers = RowAnswers()
    assert list(life.rows.execute(rows_of((), 3, A, B), answers, "billing")) == [0, 1, 2]
    gtrids = list(life.driver.transactions)
    assert len(set(gtrids)) == 3
    assert [life.gtrids.is_ours(gtrid) and not life.gtrids.is_claimable(gtrid) for gtrid in gtrids] == [True] * 3
    assert life.driver.open_by_client == {"billing": 3}
    life.vote_rows(A, B)
    await forced()
    life.acknowledge_rows(A, B)
    assert [gtrid for gtrid, _ in answers.together.values()] == gtrids


async def test_rows_whose_names_can_not_be_claimed_are_left_and_the_others_answered_by_their_numbers() -> None:
    """One was used, one is no name, one is of another coordinator, and one stands there twice."""
    life = await prepared()
    drawn = life.names(4)
    used = drawn[1]
    life.requests.inquire(used, "", 2)  # told to be aborted, which uses it up
    gtrids = [used, drawn[0], "no name", drawn[2], "zzzzzzzz-1-0-0", drawn[2], drawn[3]]
    taken, answers = asked(life, gtrids)
    assert taken == [1, 3, 6]
    to_a, _ = life.transport.columns
    assert list(to_a.request.gtrids) == [drawn[0], drawn[2], drawn[3]]
    assert list(to_a.request.payloads) == [f"{row} at {A}".encode() for row in (1, 3, 6)]
    for call in life.transport.columns:
        call.yes(0, 2)
    to_a.lose(1)
    await forced()
    for call in life.transport.columns[2:]:
        call.done()
    assert {row: gtrid for row, (gtrid, _) in answers.together.items()} == {1: drawn[0], 6: drawn[3]}
    assert [results for _, results in answers.together.values()] == [
        [f"done: {row} at {bqual}".encode() for bqual in (A, B)] for row in (1, 6)
    ]
    life.rolled_back(A, B)
    assert answers.alone(3).outcome is Outcome.ABORTED


async def test_names_that_another_has_drawn_are_left() -> None:
    life = await prepared()
    ours, theirs = life.names(2, "billing"), life.names(2, "shipping")
    taken, _ = asked(life, [ours[0], theirs[0], ours[1], theirs[1]])
    assert taken == [0, 2]
    assert life.driver.open_by_client == {"billing": 2}
    assert [life.gtrids.is_claimable(gtrid) for gtrid in theirs] == [True, True]


async def test_when_no_name_can_be_claimed_nothing_is_done() -> None:
    life = await prepared()
    taken, answers = asked(life, ["no name", "k3v9q2xw-1-0-0"])
    assert taken == []
    assert_nothing_done(life, answers)


async def test_names_whose_time_is_over_begin_nothing() -> None:
    life = await prepared(DriverOptions(block_lifetime_s=600.0))
    gtrids = life.names(2)
    life.clock.advance(601.0)
    taken, answers = asked(life, gtrids)
    assert taken == []
    assert_nothing_done(life, answers)


async def test_a_name_begins_a_transaction_once() -> None:
    life = await prepared()
    gtrids = life.names(2)
    assert asked(life, gtrids)[0] == [0, 1]
    assert asked(life, gtrids)[0] == []
    assert life.driver.counters["begun"] == 2


# -- what does not go together -----------------------------------------------------------------------------------------


async def test_who_may_begin_only_some_of_the_rows_is_left_with_all_of_them() -> None:
    """Which of them there is room for is found out one by one."""
    life = await prepared(DriverOptions(open_transactions_max=5))
    for _ in range(2):
        life.begin()
    assert asked(life, life.names(4))[0] == []
    assert asked(life, life.names(3))[0] == [0, 1, 2]


async def test_the_room_of_one_client_is_kept_as_well() -> None:
    life = await prepared(DriverOptions(open_transactions_per_client_max=4))
    assert asked(life, life.names(3, "billing"))[0] == [0, 1, 2]
    assert asked(life, life.names(2, "billing"))[0] == []
    assert asked(life, life.names(1, "billing"))[0] == [0]
    assert asked(life, life.names(4, "shipping"))[0] == [0, 1, 2, 3]


async def test_rows_that_have_ended_make_room() -> None:
    life = await prepared(DriverOptions(open_transactions_per_client_max=3))
    asked(life, life.names(3, "billing"))
    life.vote_rows(A, B)
    await forced()
    assert asked(life, life.names(3, "billing"))[0] == []
    life.acknowledge_rows(A, B)
    assert asked(life, life.names(3, "billing"))[0] == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "bquals"),
    [
        (DriverOptions(branches_max=2), (A, B, C)),
        (DriverOptions(payload_bytes_max=4), (A, B)),
        (DriverOptions(), (A, "nobody.n1")),
        (DriverOptions(), (A, "no name.n1")),
        (DriverOptions(), (A, A)),
        (DriverOptions(), (A,)),
    ],
    ids=["too many branches", "too large", "unknown", "malformed", "one resource twice", "one branch"],
)
async def test_what_a_single_request_would_refuse_or_do_otherwise_is_left(
    options: DriverOptions, bquals: tuple[str, ...]
) -> None:
    life = await prepared(options)
    gtrids = life.names(4)
    taken, answers = asked(life, gtrids, *bquals)
    assert taken == []
    assert_nothing_done(life, answers)
    assert [life.gtrids.is_claimable(gtrid) for gtrid in gtrids] == [True] * 4


async def test_one_resource_twice_is_left_although_it_has_two_processes() -> None:
    """Two of its processes would be two branches, where a single request makes one."""
    life = await prepared()
    life.directory.add(participant("accounts.a2"))
    life.transport.by_columns.add("accounts.a2")
    taken, answers = asked(life, life.names(4), A, A)
    assert taken == []
    assert_nothing_done(life, answers)


async def test_rows_go_together_only_where_columns_can_go_to_every_branch() -> None:
    life = await prepared()
    life.transport.by_columns.discard(B)
    taken, answers = asked(life, life.names(4))
    assert taken == []
    assert_nothing_done(life, answers)


async def test_a_coordinator_that_stops_or_is_closed_takes_no_rows() -> None:
    life = await prepared()
    gtrids = life.names(2)
    life.requests.stopping = True
    assert asked(life, gtrids)[0] == []
    life.requests.stopping = False
    life.close()
    taken, answers = asked(life, gtrids)
    assert taken == []
    assert_nothing_done(life, answers)


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("timeout_ms", "left_ms"), [(0, 30_000), (2_500, 2_500), (10**9, 3_600_000)])
async def test_the_time_that_rows_have_is_what_a_single_request_would_have(timeout_ms: int, left_ms: int) -> None:
    life = await prepared()
    gtrids = life.names(2)
    life.rows.execute(replace(rows_of(gtrids, 2, A, B), timeout_ms=timeout_ms), RowAnswers())
    assert life.transport.columns[0].request.timeout_ms == left_ms
    running = life.driver.find(gtrids[0])
    assert running is not None
    assert running.deadline_unix_ms - running.begun_unix_ms == left_ms
