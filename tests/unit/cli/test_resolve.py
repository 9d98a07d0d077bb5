"""Mending by hand: nothing happens without a look at the transaction and a yes."""

from __future__ import annotations

import getpass
import io
import json

import pytest

from handfast.catalog import HandfastFault
from handfast.v1 import admin_pb2
from tests.unit.cli.conftest import RunCommand
from tests.unit.cli.fake_admin import FakeAdmin
from tests.unit.cli.sample_answers import GTRID


def answer(monkeypatch: pytest.MonkeyPatch, text: str, *, terminal: bool = True) -> None:
    """Put somebody at the terminal who types this."""
    stdin = io.StringIO(text)
    monkeypatch.setattr(stdin, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stdin", stdin)


def resolutions(admin: FakeAdmin) -> list[admin_pb2.ResolveRequest]:
    return [request for request in admin.asked if isinstance(request, admin_pb2.ResolveRequest)]


@pytest.mark.parametrize(
    ("flag", "action"),
    [
        ("--commit", admin_pb2.RESOLVE_ACTION_COMMIT),
        ("--rollback", admin_pb2.RESOLVE_ACTION_ROLLBACK),
        ("--retry-now", admin_pb2.RESOLVE_ACTION_RETRY_NOW),
        ("--forget", admin_pb2.RESOLVE_ACTION_FORGET),
    ],
)
async def test_each_action_is_asked_for_under_the_name_of_who_asks(
    handfast: RunCommand, admin: FakeAdmin, flag: str, action: admin_pb2.ResolveAction.ValueType
) -> None:
    ran = await handfast("resolve", GTRID, flag, "--yes", "--reason", "disk replaced")
    assert ran.code == 0
    assert "✓ Commit was sent to ledger again." in ran.out
    (request,) = resolutions(admin)
    assert (request.gtrid, request.action, request.heuristic, request.reason) == (GTRID, action, False, "disk replaced")
    assert request.operator.startswith(f"{getpass.getuser()}@")


async def test_a_yes_at_the_terminal_resolves_after_showing_what_is_at_stake(
    handfast: RunCommand, admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "yes\n")
    ran = await handfast("resolve", GTRID, "--rollback", "--heuristic")
    assert ran.code == 0
    assert "DecisionForced" in ran.err
    assert "The branches still in doubt will be rolled back." in ran.err
    assert "Databases may then disagree for good." in " ".join(ran.err.split())
    assert [request.heuristic for request in resolutions(admin)] == [True]


@pytest.mark.parametrize("typed", ["no\n", "y\n", "\n", ""])
async def test_anything_but_yes_does_nothing(
    handfast: RunCommand, admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    answer(monkeypatch, typed)
    ran = await handfast("resolve", GTRID, "--commit")
    assert ran.code == 1
    assert f"Nothing was done: committing {GTRID} was not confirmed." in ran.err
    assert resolutions(admin) == []


async def test_without_a_terminal_nothing_is_done_and_yes_is_named(
    handfast: RunCommand, admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "yes\n", terminal=False)
    ran = await handfast("resolve", GTRID, "--forget")
    assert ran.code == 1
    assert "needs a confirmation, and nobody is there to give it" in ran.err
    assert "--yes" in ran.err
    assert admin.asked == []


async def test_json_never_asks_a_question(
    handfast: RunCommand, admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "yes\n")
    ran = await handfast("resolve", GTRID, "--commit", "--json")
    assert json.loads(ran.out)["error"]["code"] == "CONFIRMATION_MISSING"
    assert admin.asked == []


async def test_a_retry_changes_no_outcome_and_asks_nothing(
    handfast: RunCommand, admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "", terminal=False)
    assert (await handfast("resolve", GTRID, "--retry-now")).code == 0
    assert len(resolutions(admin)) == 1


async def test_an_orphan_that_the_coordinator_does_not_know_can_be_resolved(
    handfast: RunCommand, admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "yes\n")
    admin.answers["GetTransaction"] = HandfastFault("TRANSACTION_UNKNOWN", gtrid=GTRID)
    ran = await handfast("resolve", GTRID, "--rollback")
    assert ran.code == 0
    assert f"The coordinator remembers nothing of {GTRID}." in ran.err


async def test_a_resolution_against_the_decision_is_refused_in_the_coordinators_words(
    handfast: RunCommand, admin: FakeAdmin
) -> None:
    admin.answers["Resolve"] = HandfastFault("RESOLUTION_CONTRADICTS", gtrid=GTRID, decision="COMMIT")
    ran = await handfast("resolve", GTRID, "--rollback", "--yes")
    assert ran.code == 1
    assert "would break atomicity" in ran.err
    assert "--heuristic" in ran.err
