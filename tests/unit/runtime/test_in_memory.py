"""The transactions in memory, by name, whether they are kept one by one or as rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from coordinator.protocol.states import TransactionState
from coordinator.protocol.transaction import GlobalTransaction
from coordinator.runtime.in_memory import Finished, Transactions
from coordinator.runtime.inspection import list_transactions
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.running import Running
from tests.unit.runtime.scripted import A, B, Life, forced, start

S = TransactionState


def running(gtrid: str) -> Running:
    return Running(GlobalTransaction(gtrid, 1e9), 7)


class ThreeRows:
    """Kept together; notes which were asked for."""

    begun_unix_ms = 5

    def __init__(self, *gtrids: str) -> None:
        self.gtrids = gtrids
        self.asked: list[str] = []

    def taken_out(self, gtrid: str) -> Running:
        self.asked.append(gtrid)
        return running(gtrid)

    def shown(self, gtrid: str) -> Running:
        self.asked.append(gtrid)
        return running(gtrid)

    def states(self) -> Mapping[str, TransactionState]:
        return dict.fromkeys(self.gtrids, S.COMMITTING)


# -- open --------------------------------------------------------------------------------------------------------------


def test_one_that_is_kept_by_itself_is_found_and_dropped_by_its_name() -> None:
    transactions = Transactions()
    one = transactions["a"] = running("a")
    assert transactions["a"] is one
    assert transactions.get("b") is None
    del transactions["a"]
    assert len(transactions) == 0


def test_only_asking_for_a_row_takes_it_out() -> None:
    transactions, rows = Transactions(), ThreeRows("b", "c", "d")
    transactions["a"] = running("a")
    transactions.rows.update(dict.fromkeys(rows.gtrids, rows))
    assert ("b" in transactions, "z" in transactions) == (True, False)
    assert (len(transactions), list(transactions)) == (4, ["a", "b", "c", "d"])
    assert list(transactions.standings()) == [("a", S.ACTIVE, 7), *((one, S.COMMITTING, 5) for one in rows.gtrids)]
    assert rows.asked == []
    assert transactions["c"].gtrid == "c"
    assert rows.asked == ["c"]


def test_a_name_that_nobody_has_is_a_key_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        Transactions()["a"]
    with pytest.raises(KeyError):
        Finished(3)["a"]


# -- ended -------------------------------------------------------------------------------------------------------------


def test_of_those_that_went_alone_the_last_are_kept() -> None:
    finished = Finished(2)
    for gtrid in ("a", "b", "c"):
        finished[gtrid] = running(gtrid)
    assert (list(finished), len(finished)) == (["b", "c"], 2)
    assert "a" not in finished


def test_of_those_that_ended_as_rows_the_last_are_kept() -> None:
    finished, rows = Finished(4), ThreeRows(*"abcdefg")
    for ended in (["a"], ["b", "c"], ["d", "e"], ["f"]):
        finished.keep_rows(ended, rows)
    assert list(finished) == ["d", "e", "f"]
    assert rows.asked == []
    assert finished["e"].gtrid == "e"
    assert finished.get("b") is None


def test_rows_that_end_all_at_once_are_kept_until_others_end_however_many_they_are() -> None:
    finished, rows = Finished(2), ThreeRows(*"abcd")
    finished.keep_rows(["a", "b", "c"], rows)
    assert list(finished) == ["a", "b", "c"]
    finished.keep_rows(["d"], rows)
    assert list(finished) == ["d"]


def test_neither_kind_of_ended_ones_pushes_out_the_other() -> None:
    finished, rows = Finished(2), ThreeRows("a", "b")
    finished["x"] = running("x")
    finished.keep_rows(["a", "b"], rows)
    finished["y"] = running("y")
    assert list(finished) == ["x", "y", "a", "b"]


def test_one_that_is_to_be_forgotten_is_gone_before_its_turn() -> None:
    finished, rows = Finished(2), ThreeRows("a", "b")
    finished.keep_rows(["a", "b"], rows)
    finished["x"] = running("x")
    assert finished.pop("a").gtrid == "a"
    del finished["x"]
    assert list(finished) == ["b"]
    with pytest.raises(KeyError):
        del finished["a"]
    finished.keep_rows(["c", "d"], rows)
    assert list(finished) == ["c", "d"]


# -- reports -----------------------------------------------------------------------------------------------------------


async def some_of_each(life: Life) -> list[str]:
    """Two rows that have ended, two that are being committed, one that lacks a vote and one that is with the log."""
    gtrids = life.names(6)
    life.execute_rows(gtrids, A, B)
    to_a, to_b = life.transport.columns
    to_a.yes(0, 1, 2, 3, 5)
    to_b.yes(0, 1)
    await forced()
    life.transport.columns[2].done()
    life.transport.columns[3].done()
    to_b.yes(2, 3)
    await forced()
    life.log.hold()
    to_b.yes(5)
    return gtrids


async def test_where_transactions_stand_is_counted_without_taking_a_row_out() -> None:
    """A status that is asked for every second must not send all rows the long way."""
    life = await start()
    gtrids = await some_of_each(life)
    life.driver.find(gtrids[3])
    single = life.begin(A)
    states = Counter(state for _, state, _ in life.driver.transactions.standings())
    assert states == {S.COMMITTING: 2, S.PREPARING: 2, S.ACTIVE: 1}
    assert list(life.driver.transactions.single) == [gtrids[3], single]
    assert [state for _, state, _ in life.driver.finished.standings()] == [S.COMMITTED] * 2


async def test_a_list_shows_rows_as_what_they_would_be_and_takes_out_those_alone_that_it_shows() -> None:
    life = await start()
    gtrids = await some_of_each(life)
    found, more = list_transactions(life.driver, {S.PREPARING, S.COMMITTED}, 0)
    assert [(one.gtrid, one.transaction.state) for one in found] == [
        (gtrids[4], S.PREPARING),
        (gtrids[5], S.PREPARING),
        (gtrids[0], S.COMMITTED),
        (gtrids[1], S.COMMITTED),
    ]
    assert more == 0
    assert list(life.driver.transactions.single) == gtrids[4:]


async def test_a_list_begins_with_the_newest_and_says_how_many_it_leaves_out() -> None:
    life = await start(options=DriverOptions(finished_kept_max=2))
    await some_of_each(life)
    life.clock.advance(0.5)
    single = life.begin(A)
    life.clock.advance(0.5)
    newest = life.names(2)
    life.execute_rows(newest, A, B)
    found, more = list_transactions(life.driver, set(), 4)
    assert [one.gtrid for one in found][:3] == [*newest, single]
    assert (len(found), more) == (4, 5)


async def test_a_list_tells_of_one_that_is_in_the_log_and_in_memory_once() -> None:
    life = await start(options=DriverOptions(finished_kept_max=2))
    first, second = life.names(2), life.names(2)
    for gtrids in (first, second):
        life.execute_rows(gtrids, A, B)
        life.vote_rows(A, B)
        await forced()
        life.acknowledge_rows(A, B)
        await forced()
    assert list(life.driver.finished) == second
    found, _ = list_transactions(life.driver, set(), 0)
    assert sorted(one.gtrid for one in found) == sorted([*first, *second])
    assert [one.recovered for one in found if one.gtrid in second] == [False, False]
