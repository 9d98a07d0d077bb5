"""Waiting is added up as the writer felt it."""

from chaos.observers import Blocked, gtrid_of, joined


def test_locked_then_unreachable_then_locked_is_one_wait() -> None:
    felt = joined(
        [
            Blocked("ledger", 1, 4.1, 6.0),
            Blocked("ledger", 1, 1.0, 2.0),
            Blocked("ledger", 1, 2.05, 4.0, "unreachable"),
        ]
    )
    assert [(one.start_s, one.end_s, one.kind) for one in felt] == [(1.0, 6.0, "locked")]


def test_waits_of_other_rows_databases_and_times_stay_apart() -> None:
    waits = [
        Blocked("accounts", 1, 1.0, 2.0),
        Blocked("accounts", 2, 1.0, 2.0),
        Blocked("ledger", 1, 1.0, 2.0),
        Blocked("accounts", 1, 3.0, 4.0),
    ]
    assert sorted(joined(waits), key=str) == sorted(waits, key=str)


def test_a_branch_of_ours_is_known_by_its_transaction_and_a_foreign_one_by_its_name() -> None:
    ours = "handfast_k3v9q2xw-3-0m9xk2f1c-2s_accounts.7hx2k9qd"
    assert [gtrid_of(ours), gtrid_of("somebody-else")] == ["k3v9q2xw-3-0m9xk2f1c-2s", "somebody-else"]
