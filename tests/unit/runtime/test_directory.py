"""Who is where."""

from __future__ import annotations

from collections import Counter

import pytest

from coordinator.runtime.directory import Directory
from handfast.catalog import HandfastFault
from tests.unit.runtime.scripted import participant


def test_a_process_at_the_address_of_an_older_one_replaces_it() -> None:
    directory = Directory([participant("accounts.old", "host:1"), participant("accounts.other", "host:2")])
    gone = directory.add(participant("accounts.new", "host:1"))
    assert [one.instance for one in gone] == ["old"]
    assert {one.instance for one in directory.instances("accounts")} == {"new", "other"}
    assert not directory.knows("accounts", "old")


def test_two_resources_of_one_process_do_not_replace_each_other() -> None:
    directory = Directory([participant("accounts.a", "host:1")])
    assert directory.add(participant("ledger.a", "host:1")) == []
    assert directory.resources() == ["accounts", "ledger"]


def test_the_holder_comes_first_then_the_newest() -> None:
    directory = Directory([participant(f"accounts.i{n}", registered_unix_ms=n) for n in range(4)])
    assert [one.instance for one in directory.instances("accounts", first="i1")] == ["i1", "i3", "i2", "i0"]


def test_every_process_of_every_resource_gets_its_turn() -> None:
    """Requests that name the same two resources each time must not always meet the same process of each."""
    directory = Directory([participant(f"{resource}.i{n}") for resource in ("accounts", "ledger") for n in range(2)])
    picked = Counter(
        f"{resource}.{directory.pick(resource).instance}" for _ in range(10) for resource in ("accounts", "ledger")
    )
    assert picked == {"accounts.i0": 5, "accounts.i1": 5, "ledger.i0": 5, "ledger.i1": 5}


def test_a_resource_that_nobody_serves_is_a_fault() -> None:
    with pytest.raises(HandfastFault) as raised:
        Directory().pick("accounts")
    assert raised.value.code == "RESOURCE_UNKNOWN"


def test_new_work_goes_to_processes_that_are_up_and_to_any_when_none_is() -> None:
    directory = Directory([participant(f"accounts.i{n}") for n in range(3)])
    up = {"i1", "i2"}
    assert {directory.pick("accounts", lambda one: one.instance in up).instance for _ in range(6)} == up
    assert {directory.pick("accounts", lambda one: False).instance for _ in range(6)} == {"i0", "i1", "i2"}


def test_a_new_branch_is_named_after_whoever_serves_its_resource_by_now() -> None:
    directory = Directory([participant("accounts.i0", "host:1")])
    assert [directory.new_branch("accounts") for _ in range(2)] == ["accounts.i0", "accounts.i0"]
    directory.add(participant("accounts.i1", "host:2"))
    assert {directory.new_branch("accounts") for _ in range(4)} == {"accounts.i0", "accounts.i1"}
    restarted = Directory([participant("accounts.i0", "host:1")])
    assert restarted.new_branch("accounts") == "accounts.i0"
    restarted.add(participant("accounts.i2", "host:1"))
    assert restarted.new_branch("accounts") == "accounts.i2"
