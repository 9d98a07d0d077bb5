"""What a script reads: one document, every field of the proto, numbers as numbers, keys as in docs/cli.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from handfast.v1 import admin_pb2, types_pb2
from tests.architecture.source_tree import REPOSITORY
from tests.unit.cli import sample_answers
from tests.unit.cli.conftest import RunCommand
from tests.unit.cli.fake_admin import FakeAdmin
from tests.unit.cli.sample_answers import GTRID

REPORTS = (
    "status",
    "doctor",
    "indoubt",
    "participants",
    "operations",
    "audit",
    "transactions list",
    f"transactions show {GTRID}",
    f"resolve {GTRID} --retry-now",
    "explain LOG_LOCKED",
    "explain",
    "version",
)
FREE_KEYS = {"transactions_by_state", "counters"}
"""Maps, whose keys are data."""


def keys_in(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield key
            if key not in FREE_KEYS:
                yield from keys_in(value)
    elif isinstance(content, list):
        for item in content:
            yield from keys_in(item)


def documented_words(command: str) -> set[str]:
    """The words in code spans of the command's section and of the forms that several answers contain."""
    sections = re.split(r"^#{2,3} ", (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    wanted = [text for text in sections if text.split("\n")[0] in {command, "The forms that several answers contain"}]
    assert len(wanted) == 2, f"docs/cli.md has no section {command!r}"
    return set(re.findall(r"`([a-z_]+)`", " ".join(wanted)))


@pytest.mark.parametrize("command", REPORTS)
async def test_every_report_prints_one_document_whose_keys_are_documented(handfast: RunCommand, command: str) -> None:
    ran = await handfast(*command.split(), "--json")
    name = " ".join(["handfast", *[word for word in command.split() if re.fullmatch("[a-z]+", word)]])
    assert ran.err == ""
    assert {*keys_in(json.loads(ran.out))} - documented_words(name) == set()


async def test_watch_prints_a_document_on_each_line(handfast: RunCommand, admin: FakeAdmin) -> None:
    change = admin_pb2.WatchTransactionsResponse(transaction=sample_answers.committing(), skipped=3)
    admin.answers["WatchTransactions"] = [change, change]
    lines = (await handfast("transactions", "watch", "--json")).out.splitlines()
    assert [json.loads(line)["skipped"] for line in lines] == [3, 3]
    assert {*keys_in(json.loads(lines[0]))} - documented_words("handfast transactions watch") == set()


async def test_show_prints_the_transaction_itself(handfast: RunCommand) -> None:
    content = json.loads((await handfast("transactions", "show", GTRID, "--json")).out)
    assert list(content) == [field.name for field in admin_pb2.Transaction.DESCRIPTOR.fields]
    assert (content["gtrid"], content["state"], content["outcome"]) == (GTRID, "COMMITTING", None)
    assert content["branches"][1]["attempts"] == 7
    assert content["begun_unix_ms"] == sample_answers.NOW_MS - 12_300
    assert content["one_shot"] is False


async def test_fields_that_are_not_set_are_there_all_the_same(handfast: RunCommand, admin: FakeAdmin) -> None:
    admin.answers["Resolve"] = admin_pb2.ResolveResponse()
    admin.answers["ListTransactions"] = admin_pb2.ListTransactionsResponse()
    assert json.loads((await handfast("resolve", GTRID, "--retry-now", "--json")).out) == {
        "transaction": None,
        "done": "",
    }
    assert json.loads((await handfast("transactions", "list", "--json")).out) == {"transactions": [], "more": 0}


async def test_maps_keep_their_keys_and_severities_their_names(handfast: RunCommand) -> None:
    status = json.loads((await handfast("status", "--json")).out)
    assert status["transactions_by_state"]["COMMITTED"] == 9812
    findings = json.loads((await handfast("doctor", "--json")).out)["findings"]
    assert {finding["severity"] for finding in findings} == {"OK", "WARNING", "ERROR"}


async def test_a_state_that_this_version_does_not_know_is_shown_by_its_number(
    handfast: RunCommand, admin: FakeAdmin
) -> None:
    newer = admin_pb2.Transaction.FromString(b"\x0a\x01x\x10\x63")
    assert newer.state not in types_pb2.TransactionState.values()
    admin.answers["GetTransaction"] = admin_pb2.GetTransactionResponse(transaction=newer)
    assert json.loads((await handfast("transactions", "show", "x", "--json")).out)["state"] == "99"
    assert "99" in (await handfast("transactions", "show", "x")).out
