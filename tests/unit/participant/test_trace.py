"""The participant's trace: each message is a line with what it did, and so is whatever else happens to a branch."""

import json
from typing import Any

from handfast.trace import Owner, Trace
from handfast.xid import Xid
from participant.protocol import Cause, Decision, Fate, Outcome
from participant.trace import TracedBranches

OURS = "accounts.one"
FAR_S = 1_000.0
GTRID = "k3v9q2xw-3-0m9xk2f1c-2s"


class Kept:
    """A trace in memory."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, line: str) -> None:
        self.lines.append(json.loads(line))

    @property
    def steps(self) -> list[tuple[str, str | None, str | None]]:
        return [(one["event"], one.get("before"), one.get("after")) for one in self.lines]


def traced() -> tuple[TracedBranches, Kept]:
    kept = Kept()
    trace = Trace(kept, Owner("participant", OURS, monotonic_s=lambda: 0.0))
    return TracedBranches(trace, OURS, memory_count_max=100, memory_age_s=60.0), kept


def test_a_branch_is_told_from_its_work_to_its_end() -> None:
    branches, kept = traced()
    branch = branches.begin(GTRID, 1, FAR_S)
    branches.on_prepare(GTRID, OURS, 1, FAR_S, 0.0, operations=False)
    branches.on_prepared(branch, "pg:7", 0.0)
    branches.on_commit(GTRID, OURS)
    branches.finished(Decision.COMMIT, Xid(GTRID, OURS), Fate.COMMITTED, Outcome.COMMITTED, "")
    branches.on_ended(branch, Fate.COMMITTED, "", 1.0)
    assert kept.steps == [
        ("Begun", None, "ACTIVE"),
        ("PREPARE_MESSAGE", "ACTIVE", "PREPARING"),
        ("PREPARED", "PREPARING", "IN_DOUBT"),
        ("COMMIT_MESSAGE", "IN_DOUBT", "IN_DOUBT"),
        ("Finished", None, None),
        ("ENDED_COMMITTED", "IN_DOUBT", "COMMITTED"),
    ]
    assert (kept.lines[1]["action"], kept.lines[2]["fields"]["vote"]) == ("PREPARE", "YES")


def test_a_repeat_is_told_with_the_answer_it_got() -> None:
    branches, kept = traced()
    branch = branches.begin(GTRID, 1, FAR_S)
    branches.on_work_failed(branch, Cause("BRANCH_FAILED", "no money"), 0.0)
    branches.on_prepare(GTRID, OURS, 1, FAR_S, 0.0, operations=False)
    assert kept.steps[-1] == ("PREPARE_MESSAGE", "ABORTED", "ABORTED")
    assert kept.lines[-1]["answer"] == {"vote": "NO", "cause": "BRANCH_FAILED"}


def test_a_rollback_that_overtook_its_prepare_is_one_line() -> None:
    branches, kept = traced()
    branches.on_rollback(GTRID, OURS, 1, 0.0)
    branches.on_prepare(GTRID, OURS, 1, FAR_S, 0.0, operations=True)
    assert kept.steps == [("ROLLBACK_MESSAGE", None, "ABORTED"), ("PREPARE_MESSAGE", "ABORTED", "ABORTED")]
    assert kept.lines[-1]["answer"]["vote"] == "NO"


def test_another_instance_s_branch_is_told_without_states() -> None:
    branches, kept = traced()
    branches.on_commit(GTRID, "accounts.two")
    assert kept.lines[-1]["branch"] == "accounts.two"
    assert kept.steps == [("COMMIT_MESSAGE", None, None)]


def test_a_one_phase_commit_is_told() -> None:
    branches, kept = traced()
    branch = branches.on_commit_one_phase(GTRID, OURS, 1, FAR_S, 0.0, operations=True).branch
    assert branch is not None
    branches.on_committed_open(branch, "pg:7", 1.0)
    assert kept.steps == [
        ("COMMIT_ONE_PHASE_MESSAGE", None, "PREPARING"),
        ("ENDED_COMMITTED", "PREPARING", "COMMITTED"),
    ]
    assert kept.lines[-1]["fields"]["one_phase"] is True
