"""Times and lengths of time as a person reads them, and colours that only repeat a word."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from coordinator.cli import show_audit, show_doctor, show_indoubt, show_status, show_transactions
from coordinator.cli.words import due, duration, moment
from handfast.v1 import admin_pb2
from tests.unit.cli import sample_answers
from tests.unit.cli.sample_answers import NOW_MS

WIDTH = 100


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1.0 s"),
        (12_340, "12.3 s"),
        (59_940, "59.9 s"),
        (59_960, "1 min"),
        (65_000, "1 min 5 s"),
        (3_599_600, "1 h"),
        (7_860_000, "2 h 11 min"),
        (86_400_000, "1 d"),
        (273_600_000, "3 d 4 h"),
    ],
)
def test_a_length_of_time_is_given_in_its_two_largest_units(milliseconds: int, words: str) -> None:
    assert duration(milliseconds) == words


@pytest.mark.parametrize(
    ("unix_ms", "seen", "is_due"),
    [
        (0, "–", "–"),
        (NOW_MS, "now", "now"),
        (NOW_MS - 12_300, "12.3 s ago", "now"),
        (NOW_MS + 4_100, "in 4.1 s", "in 4.1 s"),
    ],
)
def test_a_moment_is_seen_from_now(unix_ms: int, seen: str, is_due: str) -> None:
    assert (moment(unix_ms, NOW_MS), due(unix_ms, NOW_MS)) == (seen, is_due)


def reports() -> dict[str, RenderableType]:
    return {
        "status": show_status.status(admin_pb2.GetStatusResponse(transactions_by_state={"ACTIVE": 1}), "a:1"),
        "list": show_transactions.listing(
            admin_pb2.ListTransactionsResponse(transactions=[sample_answers.committing(), sample_answers.aborted()]),
            NOW_MS,
        ),
        "show": show_transactions.one(sample_answers.mixed(), NOW_MS),
        "indoubt": show_indoubt.indoubt(
            admin_pb2.ListInDoubtResponse(branches=[admin_pb2.InDoubtBranch(branch=sample_answers.prepared())])
        ),
        "doctor": show_doctor.doctor(admin_pb2.DiagnoseResponse(findings=[sample_answers.UNREACHABLE])),
        "audit": show_audit.audit(admin_pb2.AuditResponse(verdict="atomic")),
    }


@pytest.mark.parametrize("name", reports())
def test_a_report_says_the_same_without_colours(name: str) -> None:
    monochrome, coloured = (
        Console(width=WIDTH, file=io.StringIO(), force_terminal=True, record=True, color_system=system)
        for system in (None, "truecolor")
    )
    monochrome.print(reports()[name])
    coloured.print(reports()[name])
    assert "\x1b[" in coloured.export_text(styles=True, clear=False)
    assert monochrome.export_text() == coloured.export_text()


@pytest.mark.parametrize("name", reports())
def test_a_report_fits_a_hundred_columns_with_every_gtrid_whole(name: str) -> None:
    console = Console(width=WIDTH, file=io.StringIO(), record=True)
    console.print(reports()[name])
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= WIDTH
    assert "…" not in text
