"""Answers of a coordinator in the middle of its day: a commit that waits for a participant, an abort, one at work."""

from __future__ import annotations

from google.protobuf.message import Message

from handfast.v1 import admin_pb2, participant_pb2, types_pb2

NOW_MS = 1_790_000_000_000
GTRID = "k3v9q2xw-3-0m9xk2f1c-2s"
ACCOUNTS = "accounts.7hx2k9qd"
LEDGER = "ledger.p2m4n6q8"
REFUSED = "connection refused (127.0.0.1:7502)"


def committing(now_ms: int = NOW_MS) -> admin_pb2.Transaction:
    """Decided commit; the ledger's participant is down."""
    begun = now_ms - 12_300
    events = (
        (0, "TransactionBegun", "", "client shop-17, 5 s to decide"),
        (14, "BranchEnlisted", ACCOUNTS, ""),
        (31, "BranchEnlisted", LEDGER, ""),
        (52, "CommitRequested", "", ""),
        (58, "VoteReceived", ACCOUNTS, "YES, proof 748812"),
        (61, "VoteReceived", LEDGER, "YES, proof 91027"),
        (63, "DecisionForced", "", "COMMIT"),
        (66, "BranchAcknowledged", ACCOUNTS, "COMMITTED"),
        (67, "DeliveryFailed", LEDGER, f"attempt 1: {REFUSED}"),
        (8_200, "DeliveryFailed", LEDGER, f"attempt 7: {REFUSED}"),
    )
    return admin_pb2.Transaction(
        gtrid=GTRID,
        state=types_pb2.TRANSACTION_STATE_COMMITTING,
        begun_unix_ms=begun,
        decided_unix_ms=begun + 63,
        client="shop-17",
        branches=[
            types_pb2.Branch(
                bqual=ACCOUNTS,
                resource="accounts",
                instance="7hx2k9qd",
                state=types_pb2.BRANCH_STATE_COMMITTED,
                vote=types_pb2.VOTE_YES,
                outcome=types_pb2.OUTCOME_COMMITTED,
                attempts=1,
                proof="748812",
            ),
            types_pb2.Branch(
                bqual=LEDGER,
                resource="ledger",
                instance="p2m4n6q8",
                state=types_pb2.BRANCH_STATE_IN_DOUBT,
                vote=types_pb2.VOTE_YES,
                attempts=7,
                next_attempt_unix_ms=now_ms + 4_100,
                last_error=REFUSED,
                proof="91027",
            ),
        ],
        history=[
            admin_pb2.HistoryEntry(unix_ms=begun + after, event=event, bqual=bqual, detail=detail)
            for after, event, bqual, detail in events
        ],
    )


def aborted(now_ms: int = NOW_MS) -> admin_pb2.Transaction:
    """A branch voted NO."""
    return admin_pb2.Transaction(
        gtrid="k3v9q2xw-3-0m9xk2f1c-2r",
        state=types_pb2.TRANSACTION_STATE_ABORTED,
        outcome=types_pb2.OUTCOME_ABORTED,
        cause=types_pb2.ABORT_CAUSE_VOTE_NO,
        reason="accounts.7hx2k9qd: insufficient funds",
        begun_unix_ms=now_ms - 65_000,
        decided_unix_ms=now_ms - 64_950,
        ended_unix_ms=now_ms - 64_940,
        one_shot=True,
        branches=[
            types_pb2.Branch(
                bqual=ACCOUNTS,
                resource="accounts",
                state=types_pb2.BRANCH_STATE_ABORTED,
                vote=types_pb2.VOTE_NO,
                reason="insufficient funds",
                reason_code="OPERATION_FAILED",
                outcome=types_pb2.OUTCOME_ABORTED,
                attempts=1,
            ),
            types_pb2.Branch(
                bqual=LEDGER,
                resource="ledger",
                state=types_pb2.BRANCH_STATE_ABORTED,
                vote=types_pb2.VOTE_YES,
                outcome=types_pb2.OUTCOME_ABORTED,
                attempts=1,
            ),
        ],
    )


def active(now_ms: int = NOW_MS) -> admin_pb2.Transaction:
    """At work."""
    return admin_pb2.Transaction(
        gtrid="k3v9q2xw-3-0m9xk2f1c-2t",
        state=types_pb2.TRANSACTION_STATE_ACTIVE,
        begun_unix_ms=now_ms - 340,
        deadline_unix_ms=now_ms + 4_660,
        branches=[types_pb2.Branch(bqual=ACCOUNTS, resource="accounts", state=types_pb2.BRANCH_STATE_ACTIVE)],
    )


def mixed(now_ms: int = NOW_MS) -> admin_pb2.Transaction:
    """Somebody rolled a branch back by hand."""
    transaction = committing(now_ms)
    transaction.gtrid = "k3v9q2xw-2-0m9xk11aa-7"
    transaction.state = types_pb2.TRANSACTION_STATE_COMMITTED
    transaction.outcome = types_pb2.OUTCOME_HEURISTIC_MIXED
    branch = transaction.branches[1]
    branch.outcome = types_pb2.OUTCOME_HEURISTIC_ROLLBACK
    branch.state = types_pb2.BRANCH_STATE_ABORTED
    branch.next_attempt_unix_ms = 0
    branch.evidence = "pg_xact_status(91027) = aborted"
    return transaction


def prepared(now_ms: int = NOW_MS) -> participant_pb2.PreparedBranch:
    """The ledger's branch, and who waits for it."""
    return participant_pb2.PreparedBranch(
        gtrid=GTRID,
        bqual=LEDGER,
        gid=f"handfast_{GTRID}_{LEDGER}",
        prepared_unix_ms=now_ms - 12_240,
        age_ms=12_240,
        owner="bank",
        database="ledger",
        locks_held=3,
        blocked=[
            participant_pb2.BlockedSession(
                pid=4319, waiting_ms=1_900, statement="SELECT balance FROM entry WHERE account = 7 FOR UPDATE"
            ),
            participant_pb2.BlockedSession(
                pid=4312, waiting_ms=8_200, statement="UPDATE entry SET balance = balance + 120 WHERE account = 7"
            ),
        ],
        xmin_age=1_204,
    )


UNREACHABLE = participant_pb2.Finding(
    check="reachable",
    severity=participant_pb2.SEVERITY_ERROR,
    found=REFUSED,
    mend="Start the service ledger, or mend the network.",
    subject="ledger",
)


def answers(now_ms: int = NOW_MS) -> dict[str, Message]:
    """A full answer to each call."""
    return {
        "GetStatus": _status(),
        "ListTransactions": admin_pb2.ListTransactionsResponse(
            transactions=[active(now_ms), committing(now_ms), aborted(now_ms), mixed(now_ms)], more=9_996
        ),
        "GetTransaction": admin_pb2.GetTransactionResponse(transaction=committing(now_ms)),
        "ListInDoubt": _in_doubt(now_ms),
        "ListParticipants": _participants(now_ms),
        "Resolve": admin_pb2.ResolveResponse(transaction=committing(now_ms), done="Commit was sent to ledger again."),
        "Audit": _differing(),
        "ListOperations": _operations(),
        "Diagnose": _diagnosis(),
    }


def _status() -> admin_pb2.GetStatusResponse:
    return admin_pb2.GetStatusResponse(
        coordinator_id="k3v9q2xw",
        epoch=3,
        version="0.1.0",
        uptime_ms=7_860_000,
        transactions_by_state={"ACTIVE": 4, "COMMITTING": 1, "COMMITTED": 9_812, "ABORTED": 188},
        counters={"begun": 10_005, "committed": 9_812, "aborted": 188, "log_forces": 2_310, "retries": 7},
        log="/var/lib/handfast/handfast.db",
    )


def _in_doubt(now_ms: int) -> admin_pb2.ListInDoubtResponse:
    return admin_pb2.ListInDoubtResponse(
        branches=[
            admin_pb2.InDoubtBranch(
                branch=prepared(now_ms),
                state=types_pb2.TRANSACTION_STATE_COMMITTING,
                why=f"Commit is decided; the participant can't be reached: {REFUSED}. Next retry in 4.1 s.",
                command=f"handfast resolve {GTRID} --retry-now",
                resource="ledger",
            )
        ],
        unreachable=[UNREACHABLE],
    )


def _operations() -> admin_pb2.ListOperationsResponse:
    refused = admin_pb2.OperatorAction(
        unix_ms=1_700_000_001_000,
        who="spiffe://handfast/client/billing",
        peer="ipv4:10.0.0.7:40112",
        action="commit another's transaction",
        gtrid=GTRID,
        error="PERMISSION_DENIED",
        left_out=990,
    )
    done = admin_pb2.OperatorAction(
        unix_ms=1_700_000_000_000,
        who="spiffe://handfast/admin/alice (alice@desk)",
        peer="ipv4:10.0.0.9:51822",
        action="resolve --rollback",
        gtrid=GTRID,
        reason="ledger is gone for good",
        before="active",
        after="aborted",
    )
    return admin_pb2.ListOperationsResponse(operations=[refused, done])


def _participants(now_ms: int) -> admin_pb2.ListParticipantsResponse:
    return admin_pb2.ListParticipantsResponse(
        participants=[
            admin_pb2.ParticipantInfo(
                resource="accounts",
                instance="7hx2k9qd",
                address="127.0.0.1:7501",
                kind="postgres",
                registered_unix_ms=now_ms - 7_800_000,
                reachable=True,
                batched=True,
                operations=["withdraw", "deposit"],
            ),
            admin_pb2.ParticipantInfo(
                resource="ledger",
                instance="p2m4n6q8",
                address="127.0.0.1:7502",
                kind="postgres",
                registered_unix_ms=now_ms - 7_790_000,
                last_error=REFUSED,
                operations=["credit"],
            ),
        ]
    )


def _differing() -> admin_pb2.AuditResponse:
    return admin_pb2.AuditResponse(
        verdict="differs",
        transactions=9_812,
        branches=19_624,
        in_doubt=1,
        unproved=2,
        differences=[
            admin_pb2.AuditDifference(
                gtrid="k3v9q2xw-2-0m9xk11aa-7",
                bqual=LEDGER,
                log="COMMIT",
                resource="rolled back",
                evidence="pg_xact_status(91027) = aborted",
                mend="Post the missing entries by hand, then: handfast resolve k3v9q2xw-2-0m9xk11aa-7 --forget",
            )
        ],
        unreachable=[UNREACHABLE],
    )


def _diagnosis() -> admin_pb2.DiagnoseResponse:
    return admin_pb2.DiagnoseResponse(
        findings=[
            _finding(3, "accounts", "max_prepared_transactions", "0", "Set it to max_connections, then restart."),
            _finding(3, "ledger", "reachable", REFUSED, UNREACHABLE.mend),
            _finding(2, "accounts", "oldest prepared transaction", "prepared 3 h ago", "handfast indoubt"),
            _finding(1, "accounts", "version", "PostgreSQL 18.1", ""),
            _finding(1, "accounts", "role", "bank may prepare and finish branches", ""),
            _finding(1, "coordinator", "log", "/var/lib/handfast/handfast.db, schema 1, 41 GB free", ""),
            _finding(1, "coordinator", "clock", "within 2 ms of every participant", ""),
        ]
    )


def _finding(severity: int, subject: str, check: str, found: str, mend: str) -> participant_pb2.Finding:
    return participant_pb2.Finding(
        severity=participant_pb2.Severity.ValueType(severity), subject=subject, check=check, found=found, mend=mend
    )
