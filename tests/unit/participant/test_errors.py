"""SQLSTATE to the error catalog: each cause of a NO, and each failure of phase two, has its own name and advice."""

import psycopg
import pytest

from handfast.catalog import ENTRIES
from handfast.xid import Xid
from participant.postgres.errors import finish_fault, prepare_fault, vote_code, work_fault

XID = Xid("testcrd2-1-0-1", "accounts.one")


def error(state: str) -> psycopg.Error:
    """The error that psycopg raises for a SQLSTATE."""
    return psycopg.errors.lookup(state)("the server says why.")


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("40001", "SERIALIZATION_FAILURE"),
        ("40P01", "DEADLOCK"),
        ("55P03", "LOCK_TIMEOUT"),
        ("0A000", "PREPARE_UNSUPPORTED"),
        ("42501", "ROLE_LACKS_RIGHTS"),
        ("23505", "CONSTRAINT_VIOLATED"),
        ("23514", "CONSTRAINT_VIOLATED"),
        ("53200", "SLOTS_EXHAUSTED"),
        ("55000", "PREPARED_DISABLED"),
        ("57P01", "DATABASE_UNREACHABLE"),
        ("08006", "DATABASE_UNREACHABLE"),
        ("42710", "PREPARE_FAILED"),
    ],
)
def test_a_failed_prepare_is_a_vote_that_names_its_cause(state: str, code: str) -> None:
    fault = prepare_fault(error(state), XID, "accounts")
    assert (fault.code, ENTRIES[fault.code].kind) == (code, "vote")


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("0A000", "BRANCH_IN_ANOTHER_DATABASE"),
        ("42501", "FINISH_FORBIDDEN"),
        ("55000", "BRANCH_BUSY"),
        ("57P01", "RESOURCE_UNREACHABLE"),
        ("XX000", "RESOURCE_UNREACHABLE"),
    ],
)
def test_a_failed_phase_two_is_an_error_never_an_end(state: str, code: str) -> None:
    fault = finish_fault(error(state), XID, "accounts")
    assert (fault.code, ENTRIES[fault.code].kind) == (code, "call")


def test_a_lost_connection_is_the_databases_absence() -> None:
    assert vote_code(psycopg.OperationalError("the connection is lost")) == "DATABASE_UNREACHABLE"


@pytest.mark.parametrize("problem", [ValueError("no such account"), error("42601")])
def test_what_postgres_has_no_word_for_is_left_to_the_operation(problem: Exception) -> None:
    assert work_fault(problem, XID, "accounts") is None


def test_a_fault_carries_the_servers_words_on_one_line() -> None:
    problem = psycopg.errors.LockNotAvailable("canceling statement due to lock timeout\nCONTEXT:  while updating.")
    fault = prepare_fault(problem, XID, "accounts")
    assert "canceling statement due to lock timeout CONTEXT: while updating." in fault.message
    assert (fault.gtrid, fault.bqual) == (XID.gtrid, XID.bqual)
