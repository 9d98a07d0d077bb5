"""What a person reads: each report says the thing that it is there for."""

from __future__ import annotations

import re

import pytest

from handfast.v1 import admin_pb2, participant_pb2, types_pb2
from tests.unit.cli import sample_answers
from tests.unit.cli.conftest import RunCommand
from tests.unit.cli.fake_admin import FakeAdmin
from tests.unit.cli.sample_answers import GTRID, LEDGER


def squeezed(text: str) -> str:
    """The words alone, so that a test does not fix the columns."""
    return re.sub(r"\s+", " ", text)


async def test_status_tells_who_the_coordinator_is_and_what_it_holds(handfast: RunCommand) -> None:
    ran = await handfast("status")
    assert ran.code == 0
    for words in ("coordinator k3v9q2xw", "epoch 3", "up for 2 h 11 min", "serving", "COMMITTED 9,812", "retries 7"):
        assert words in squeezed(ran.out)


async def test_status_tells_that_the_coordinator_is_stopping(handfast: RunCommand, admin: FakeAdmin) -> None:
    admin.answers["GetStatus"] = admin_pb2.GetStatusResponse(stopping=True)
    assert "stopping: it takes no new work" in (await handfast("status")).out


async def test_participants_tell_who_cannot_be_reached_and_why(handfast: RunCommand) -> None:
    out = squeezed((await handfast("participants")).out)
    assert "accounts 7hx2k9qd 127.0.0.1:7501 postgres ✓ yes batched" in out
    assert "ledger p2m4n6q8 127.0.0.1:7502 postgres ✗ no –" in out
    assert "ledger.p2m4n6q8: connection refused" in out
    assert "accounts.7hx2k9qd does: withdraw, deposit" in out


async def test_no_participants_is_said_in_words(handfast: RunCommand, admin: FakeAdmin) -> None:
    admin.answers["ListParticipants"] = admin_pb2.ListParticipantsResponse()
    assert "No participant has registered." in (await handfast("participants")).out


async def test_a_transaction_listing_shows_where_each_branch_stands(handfast: RunCommand) -> None:
    out = squeezed((await handfast("transactions", "list")).out)
    assert f"{GTRID} COMMITTING accounts ✓ ledger ?" in out
    assert "ABORTED accounts ✗ ledger ✗" in out
    assert "VOTE_NO: accounts.7hx2k9qd: insufficient funds" in out
    assert "HEURISTIC_MIXED" in out
    assert "9,996 more: raise --limit" in out


async def test_a_transaction_with_many_branches_is_listed_by_their_number(
    handfast: RunCommand, admin: FakeAdmin
) -> None:
    done = types_pb2.Branch(resource="r", state=types_pb2.BRANCH_STATE_COMMITTED)
    doubt = types_pb2.Branch(resource="r", state=types_pb2.BRANCH_STATE_IN_DOUBT)
    transaction = admin_pb2.Transaction(gtrid=GTRID, branches=[done] * 60 + [doubt] * 4)
    admin.answers["ListTransactions"] = admin_pb2.ListTransactionsResponse(transactions=[transaction])
    assert "60 ✓ 4 ?" in squeezed((await handfast("transactions", "list")).out)


async def test_a_listing_passes_on_the_states_and_the_limit(handfast: RunCommand, admin: FakeAdmin) -> None:
    await handfast("transactions", "list", "--state", "committing", "--state", "active", "--limit", "7")
    states = [types_pb2.TRANSACTION_STATE_COMMITTING, types_pb2.TRANSACTION_STATE_ACTIVE]
    assert admin.asked == [admin_pb2.ListTransactionsRequest(states=states, limit=7)]


async def test_show_has_branches_what_went_wrong_and_the_history(handfast: RunCommand, admin: FakeAdmin) -> None:
    out = squeezed((await handfast("transactions", "show", GTRID)).out)
    assert admin.asked == [admin_pb2.GetTransactionRequest(gtrid=GTRID)]
    assert f"{LEDGER} YES IN_DOUBT 7 now –" in out
    assert f"{LEDGER} last error connection refused (127.0.0.1:7502)" in out
    assert "+63 ms ┼ DecisionForced COMMIT" in out
    assert f"+8.2 s ┴ DeliveryFailed {LEDGER} attempt 7" in out


async def test_show_gives_the_evidence_of_a_heuristic_outcome(handfast: RunCommand, admin: FakeAdmin) -> None:
    admin.answers["GetTransaction"] = admin_pb2.GetTransactionResponse(transaction=sample_answers.mixed())
    out = squeezed((await handfast("transactions", "show", GTRID)).out)
    assert "state COMMITTED HEURISTIC_MIXED" in out
    assert "HEURISTIC_ROLLBACK" in out
    assert f"{LEDGER} evidence pg_xact_status(91027) = aborted" in out


async def test_watch_prints_a_line_for_each_change_and_says_what_it_missed(
    handfast: RunCommand, admin: FakeAdmin
) -> None:
    admin.answers["WatchTransactions"] = [
        admin_pb2.WatchTransactionsResponse(transaction=sample_answers.active()),
        admin_pb2.WatchTransactionsResponse(transaction=sample_answers.committing(), skipped=3),
    ]
    ran = await handfast("transactions", "watch", GTRID)
    first, second = ran.out.splitlines()
    assert "ACTIVE" in first
    assert "COMMITTING" in second
    assert "(3 changes left out before this one)" in second
    assert admin.asked == [admin_pb2.WatchTransactionsRequest(gtrid=GTRID)]


async def test_watch_stops_after_the_changes_it_was_asked_for(handfast: RunCommand, admin: FakeAdmin) -> None:
    change = admin_pb2.WatchTransactionsResponse(transaction=sample_answers.active())
    admin.answers["WatchTransactions"] = [change] * 5
    assert len((await handfast("transactions", "watch", "--count", "2")).out.splitlines()) == 2


async def test_indoubt_tells_why_what_it_blocks_and_what_resolves_it(handfast: RunCommand, admin: FakeAdmin) -> None:
    ran = await handfast("indoubt")
    out = squeezed(ran.out)
    assert ran.code == 0
    assert f"? {LEDGER} in doubt for 12.2 s" in out
    assert "why Commit is decided; the participant can't be reached" in out
    assert "3 locks, 2 sessions wait, vacuum held back by 1,204 transaction ids" in out
    assert "4312 8.2 s UPDATE entry SET balance = balance + 120 WHERE account = 7" in out
    assert "not asked ledger: connection refused" in out
    assert f"handfast resolve {GTRID} --retry-now --address {admin.address}" in ran.out, (
        "it must reach this coordinator"
    )


async def test_indoubt_does_not_claim_that_all_is_well_when_it_could_not_ask(
    handfast: RunCommand, admin: FakeAdmin
) -> None:
    admin.answers["ListInDoubt"] = admin_pb2.ListInDoubtResponse(unreachable=[sample_answers.UNREACHABLE])
    assert "No branch is in doubt among the participants that could be asked." in (await handfast("indoubt")).out
    admin.answers["ListInDoubt"] = admin_pb2.ListInDoubtResponse()
    assert "✓ No branch is in doubt." in (await handfast("indoubt")).out


@pytest.mark.parametrize(
    ("one_shot", "recovered", "kind"),
    [(True, False, "one-shot"), (False, False, "interactive"), (False, True, "recovered from the log")],
)
async def test_a_transaction_from_the_log_is_not_called_interactive(
    handfast: RunCommand, admin: FakeAdmin, one_shot: bool, recovered: bool, kind: str
) -> None:
    shown = admin_pb2.Transaction(gtrid=GTRID, one_shot=one_shot, recovered=recovered)
    admin.answers["GetTransaction"] = admin_pb2.GetTransactionResponse(transaction=shown)
    assert f"kind {kind} " in squeezed((await handfast("transactions", "show", GTRID)).out)


async def test_indoubt_marks_what_is_not_ours_and_gives_sql_for_it(handfast: RunCommand, admin: FakeAdmin) -> None:
    command = "COMMIT PREPARED 'g' or ROLLBACK PREPARED 'g'"
    foreign = admin_pb2.InDoubtBranch(branch=sample_answers.prepared(), why="NOT OURS", command=command, foreign=True)
    admin.answers["ListInDoubt"] = admin_pb2.ListInDoubtResponse(branches=[foreign])
    out = squeezed((await handfast("indoubt")).out)
    assert "NOT OURS: another coordinator's" in out
    assert f"SQL {command} " in out, "no --address belongs to SQL"
    assert "--address" not in out
    assert "1 branch in doubt (1 of other coordinators)" in out


async def test_indoubt_does_not_pretend_to_know_what_an_unasked_branch_blocks(
    handfast: RunCommand, admin: FakeAdmin
) -> None:
    unasked = admin_pb2.InDoubtBranch(branch=sample_answers.prepared(), why="unreachable", not_asked=True)
    admin.answers["ListInDoubt"] = admin_pb2.ListInDoubtResponse(branches=[unasked])
    out = squeezed((await handfast("indoubt")).out)
    assert "blocks not known" in out


async def test_doctor_groups_by_subject_with_the_coordinator_first_and_the_worst_on_top(handfast: RunCommand) -> None:
    ran = await handfast("doctor")
    out = squeezed(ran.out)
    places = [
        out.index(words)
        for words in (
            "coordinator ─",
            "accounts ─",
            "✗ FAIL max_prepared_transactions 0 mend: Set it to max_connections, then restart.",
            "! WARN oldest prepared transaction",
            "✓ OK version",
            "ledger ─",
            "2 FAIL, 1 WARN, 4 OK",
        )
    ]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("severity", "code"),
    [
        (participant_pb2.SEVERITY_OK, 0),
        (participant_pb2.SEVERITY_WARNING, 0),
        (participant_pb2.SEVERITY_UNSPECIFIED, 0),
        (participant_pb2.SEVERITY_ERROR, 1),
    ],
)
async def test_doctor_leaves_with_1_only_when_something_fails(
    handfast: RunCommand, admin: FakeAdmin, severity: participant_pb2.Severity.ValueType, code: int
) -> None:
    admin.answers["Diagnose"] = admin_pb2.DiagnoseResponse(findings=[participant_pb2.Finding(severity=severity)])
    assert (await handfast("doctor")).code == code


@pytest.mark.parametrize(("verdict", "code"), [("atomic", 0), ("pending", 1), ("differs", 1)])
async def test_audit_says_its_verdict_and_leaves_with_0_only_when_atomic(
    handfast: RunCommand, admin: FakeAdmin, verdict: str, code: int
) -> None:
    admin.answers["Audit"] = admin_pb2.AuditResponse(verdict=verdict, transactions=1000, branches=2000)
    ran = await handfast("audit")
    assert ran.code == code
    assert verdict.upper() in ran.out
    assert "1,000 transactions · 2,000 branches · 0 in doubt · 0 unproved · 0 differences" in squeezed(ran.out)


async def test_audit_shows_each_difference_with_its_evidence(handfast: RunCommand) -> None:
    out = squeezed((await handfast("audit")).out)
    assert f"k3v9q2xw-2-0m9xk11aa-7 {LEDGER}" in out
    assert "the log COMMIT the resource rolled back evidence pg_xact_status(91027) = aborted" in out
    assert "mend Post the missing entries by hand" in out
    assert "not asked ledger" in out


async def test_audit_asks_for_the_last_hours_only(
    handfast: RunCommand, admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.cli.reports.unix_ms", lambda: 10_000_000)
    await handfast("audit", "--since-h", "1.5")
    assert admin.asked == [admin_pb2.AuditRequest(since_unix_ms=10_000_000 - 5_400_000)]


# -- operations ----------------------------------------------------------------------------------------------------


async def test_operations_tell_who_when_what_why_before_and_after(handfast: RunCommand) -> None:
    out = squeezed((await handfast("operations")).out)
    assert f"2023-11-14 22:13:20.000 UTC done resolve --rollback {GTRID}" in out
    assert "by spiffe://handfast/admin/alice (alice@desk) from ipv4:10.0.0.9:51822" in out
    assert "because ledger is gone for good" in out
    assert "active → aborted" in out


async def test_operations_tell_who_was_refused_and_how_often(handfast: RunCommand) -> None:
    out = squeezed((await handfast("operations")).out)
    assert f"REFUSED commit another's transaction {GTRID} by spiffe://handfast/client/billing" in out
    assert "PERMISSION_DENIED" in out
    assert "990 more refusals of the same caller before it, left out" in out


async def test_operations_can_be_narrowed(handfast: RunCommand, admin: FakeAdmin) -> None:
    await handfast("operations", "--refused", "--gtrid", GTRID, "--limit", "7")
    assert admin.asked == [admin_pb2.ListOperationsRequest(refused_only=True, gtrid=GTRID, limit=7)]


async def test_no_operations_is_said_in_words(handfast: RunCommand, admin: FakeAdmin) -> None:
    admin.answers["ListOperations"] = admin_pb2.ListOperationsResponse()
    assert "No operator has done anything, and nobody was refused." in (await handfast("operations")).out
