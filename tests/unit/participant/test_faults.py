"""A reason as the client reads it in the end: what happened, and what to do, each said once."""

from collections import defaultdict

import pytest

from handfast.catalog import ENTRIES, HandfastFault
from handfast.errors import aborted
from handfast.outcomes import AbortCause, BranchReport, Outcome, Verdict
from participant.faults import cause_of, reason_of
from participant.protocol import DEADLINE_PASSED, Cause

GTRID, BQUAL = "k3v9q2xw-1-0m9xk2f1c-1", "ledger.one"
VOTES = sorted(code for code, entry in ENTRIES.items() if entry.kind == "vote")
FIELDS = {"resource": "ledger", "problem": "it said why", "operation": "credit", "known": "debit"}


def said_to_the_client(cause: Cause) -> str:
    """What the client is told when the only NO has this cause."""
    branch = BranchReport(BQUAL, vote="NO", reason=reason_of(cause, GTRID, BQUAL), reason_code=cause.code)
    verdict = Verdict(GTRID, Outcome.ABORTED, AbortCause.VOTE_NO, "a branch said no", (branch,))
    return str(aborted(verdict))


@pytest.mark.parametrize("code", VOTES)
def test_the_client_reads_what_happened_and_what_to_do_once_each(code: str) -> None:
    fault = HandfastFault(code, gtrid=GTRID, bqual=BQUAL, **FIELDS)
    told = said_to_the_client(cause_of(fault))
    assert (told.count(fault.message), told.count(fault.mend)) == (1, 1)
    who = f"{BQUAL} gave no vote" if code == "VOTE_LOST" else f"{BQUAL} said no"
    assert told == f"Transaction {GTRID} was aborted: {who}: {fault.message} [{code}] {fault.mend}"


def test_so_it_is_for_a_cause_that_has_no_words_of_its_own() -> None:
    told = said_to_the_client(DEADLINE_PASSED)
    assert told.count("Give the transaction more time") == 1
    assert f"The deadline of {GTRID} passed before {BQUAL} was prepared. [DEADLINE_PASSED]" in told


@pytest.mark.parametrize("code", VOTES)
def test_the_client_can_word_every_mend_itself(code: str) -> None:
    """It knows the branch and the transaction; what else only the participant knows belongs into the message."""
    known = defaultdict(str, gtrid=GTRID, bqual=BQUAL, resource="ledger")
    ENTRIES[code].mend.format_map(known)
    assert set(known) == {"gtrid", "bqual", "resource"}
