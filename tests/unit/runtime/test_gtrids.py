"""Names of transactions: each begins at most one, and one that was told aborted begins none."""

from __future__ import annotations

import pytest

from coordinator.runtime.gtrids import OWN_BLOCK_SIZE, Gtrids
from handfast.catalog import HandfastFault
from handfast.xid import Gtrid
from tests.clock import ManualClock
from tests.unit.runtime.scripted import COORDINATOR_ID

LIFETIME_S = 600.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def gtrids(clock: ManualClock) -> Gtrids:
    return Gtrids(COORDINATOR_ID, 3, clock, LIFETIME_S, 0)


def test_a_name_can_be_claimed_once(gtrids: Gtrids) -> None:
    gtrid = gtrids.hand_out(10).prefix + "9"
    assert gtrids.is_claimable(gtrid)
    assert gtrids.claim(gtrid)
    assert not gtrids.is_claimable(gtrid)
    assert not gtrids.claim(gtrid)


def test_a_name_that_somebody_has_guessed_is_given_to_nobody_else(gtrids: Gtrids) -> None:
    """They may have begun a transaction by it, or have been told that it is aborted."""
    first = gtrids.next()
    prefix = first[: first.rindex("-") + 1]
    for guessed in ("1", "2", "4"):
        assert gtrids.claim(prefix + guessed)
    assert [gtrids.next() for _ in range(2)] == [prefix + "3", prefix + "5"]


def test_many_own_names_are_claimed_leave_out_what_was_guessed_and_go_on_over_the_end_of_a_block(
    gtrids: Gtrids, clock: ManualClock
) -> None:
    first = gtrids.next()
    prefix = first[: first.rindex("-") + 1]
    for guessed in ("1", "2", "5"):
        assert gtrids.claim(prefix + guessed)
    names = gtrids.next_many(OWN_BLOCK_SIZE)
    assert names[:4] == [prefix + number for number in ("3", "4", "6", "7")]
    assert len({first, *names, gtrids.next()}) == OWN_BLOCK_SIZE + 2
    assert not any(gtrids.claim(name) for name in names)
    assert gtrids.next_many(0) == []


def test_no_name_is_older_than_its_life_whatever_the_clock_says(clock: ManualClock) -> None:
    started_unix_ms = clock.unix_ms() + 60_000  # the clock was set back since
    names = Gtrids(COORDINATOR_ID, 3, clock, LIFETIME_S, started_unix_ms)
    assert Gtrid.parse(names.next()).time_ms > started_unix_ms


def test_a_name_past_the_end_of_its_block_is_none(gtrids: Gtrids) -> None:
    prefix = gtrids.hand_out(36).prefix
    assert gtrids.claim(prefix + "z")
    assert not gtrids.claim(prefix + "10")


@pytest.mark.parametrize("spelling", ["02", "002", "+2", " 2", "2 ", "0_2", "\u0662"])
def test_a_second_spelling_gives_no_second_life(gtrids: Gtrids, spelling: str) -> None:
    prefix = gtrids.hand_out(10).prefix
    assert not gtrids.claim(prefix + spelling)
    assert gtrids.claim(prefix + "2")


@pytest.mark.parametrize("spelling", ["", "%", "a name", "2;"])
def test_what_is_no_number_is_no_name(gtrids: Gtrids, spelling: str) -> None:
    assert not gtrids.claim(gtrids.hand_out(10).prefix + spelling)


def test_a_second_spelling_of_the_prefix_is_of_no_block(gtrids: Gtrids) -> None:
    name = gtrids.hand_out(10).prefix + "2"
    assert not gtrids.claim(name.replace("-3-", "-03-", 1))


def test_a_block_expires(gtrids: Gtrids, clock: ManualClock) -> None:
    gtrid = gtrids.hand_out(10).prefix + "2"
    clock.advance(LIFETIME_S - 0.001)
    assert gtrids.is_claimable(gtrid)
    clock.advance(0.001)
    assert not gtrids.claim(gtrid)


def test_expired_blocks_are_dropped(gtrids: Gtrids, clock: ManualClock) -> None:
    for _ in range(100):
        gtrids.hand_out(10)
    clock.advance(LIFETIME_S)
    gtrids.hand_out(10)
    assert len(gtrids._blocks) == 1


def test_no_two_blocks_share_a_prefix_even_when_the_clock_jumps_back(gtrids: Gtrids) -> None:
    class JumpsBack(ManualClock):
        def unix_ms(self) -> int:
            return super().unix_ms() - round((self.now_s() - 1000.0) * 60_000)

    clock = JumpsBack()
    jumpy = Gtrids(COORDINATOR_ID, 3, clock, LIFETIME_S, 0)
    prefixes = set()
    for _ in range(50):
        prefixes.add(jumpy.hand_out(1).prefix)
        clock.advance(1.0)
    assert len(prefixes) == 50


def test_own_names_are_claimed_and_go_on_over_the_end_of_a_block(gtrids: Gtrids) -> None:
    names = [gtrids.next() for _ in range(3000)]
    assert len(set(names)) == 3000
    assert not any(gtrids.claim(name) for name in names)


def test_own_names_do_not_come_from_an_expired_block(gtrids: Gtrids, clock: ManualClock) -> None:
    first = Gtrid.parse(gtrids.next())
    clock.advance(LIFETIME_S)
    assert Gtrid.parse(gtrids.next()).time_ms > first.time_ms


def test_a_name_says_whose_it_is(gtrids: Gtrids) -> None:
    name = gtrids.next()
    assert gtrids.is_ours(name)
    assert not gtrids.is_ours("another2" + name[8:])
    assert not gtrids.is_ours(name[:7] + "x" + name[7:])


def test_a_client_holds_so_many_blocks_until_they_expire_and_the_others_have_theirs(clock: ManualClock) -> None:
    names = Gtrids(COORDINATOR_ID, 3, clock, LIFETIME_S, 0, blocks_per_client_max=2)
    for _ in range(2):
        names.hand_out(1, "greedy")
    with pytest.raises(HandfastFault, match="greedy holds 2 blocks"):
        names.hand_out(1, "greedy")
    assert names.hand_out(1, "modest").claimed
    clock.advance(LIFETIME_S)
    assert names.hand_out(1, "greedy").claimed


def test_what_the_coordinator_draws_for_itself_is_nobody_s(clock: ManualClock) -> None:
    names = Gtrids(COORDINATOR_ID, 3, clock, LIFETIME_S, 0, blocks_per_client_max=1)
    for _ in range(3 * OWN_BLOCK_SIZE):
        names.next()
    assert names.hand_out(1).claimed
