"""The coordinator's trace: every step of a machine is a line, before anything is done about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from coordinator.protocol.states import Decision
from coordinator.runtime.trace import ProtocolTrace
from handfast.trace import Owner, Trace
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.scripted import COORDINATOR_ID, A, B, Life, forced, restart, start

Lines = list[dict[str, Any]]


class Kept:
    """A trace in memory."""

    def __init__(self) -> None:
        self.lines: Lines = []
        self.sent: Sequence[object] = ()
        self.sent_before: list[int] = []
        """How many messages had left when each line was written."""

    def write(self, line: str) -> None:
        self.sent_before.append(len(self.sent))
        self.lines.append(json.loads(line))

    def follow(self, life: Life) -> None:
        """Attach it to a coordinator."""
        owner = Owner("coordinator", COORDINATOR_ID, monotonic_s=life.clock.now_s)
        life.driver.trace = ProtocolTrace(Trace(self, owner), COORDINATOR_ID, life.gtrids.epoch)

    def of(self, gtrid: str) -> list[tuple[str, str | None, str | None]]:
        return [(one["event"], one.get("before"), one.get("after")) for one in self.lines if one["gtrid"] == gtrid]


async def traced() -> tuple[Life, Kept]:
    life, kept = await start(), Kept()
    kept.follow(life)
    return life, kept


async def test_a_commit_is_told_step_by_step_with_what_came_out() -> None:
    life, kept = await traced()
    gtrid = await life.committed(A, B)
    assert kept.of(gtrid) == [
        ("Begun", None, "ACTIVE"),
        ("Enlisted", "ACTIVE", "ACTIVE"),
        ("Enlisted", "ACTIVE", "ACTIVE"),
        ("CommitRequested", "ACTIVE", "PREPARING"),
        ("VoteReceived", "PREPARING", "PREPARING"),
        ("VoteReceived", "PREPARING", "PREPARING"),
        ("DecisionStood", "PREPARING", "COMMITTING"),
        ("BranchEnded", "COMMITTING", "COMMITTING"),
        ("BranchEnded", "COMMITTING", "COMMITTED"),
    ]
    asked, last_vote, ended = kept.lines[3], kept.lines[5], kept.lines[-1]
    assert asked["effects"] == {"send": [["SendPrepare", A], ["SendPrepare", B]]}
    assert last_vote["effects"] == {"force": [A, B], "send_after_force": [["SendCommit", A], ["SendCommit", B]]}
    assert (ended["effects"]["end"]["outcome"], ended["outcome"]) == ("COMMITTED", "COMMITTED")


async def test_a_branch_is_told_with_its_states_before_and_after() -> None:
    life, kept = await traced()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A)
    life.vote(B, said=t.VOTE_NO)
    enlisted, asked, yes, no = (kept.lines[index]["branches"] for index in (1, 3, 4, 5))
    assert enlisted == {A: [None, "ACTIVE"]}
    assert asked == {A: ["ACTIVE", "PREPARING"], B: ["ACTIVE", "PREPARING"]}
    assert (yes, no) == ({A: ["PREPARING", "IN_DOUBT"]}, {B: ["PREPARING", "ABORTED"]})


async def test_a_line_is_written_before_its_messages_leave() -> None:
    life, kept = await traced()
    kept.sent = life.transport.calls
    life.commit(life.begin(A, B))
    assert (kept.sent_before[-1], len(life.transport.calls)) == (0, 2)


async def test_a_transaction_taken_up_from_the_log_is_told() -> None:
    life, kept = await traced()
    gtrid, _ = await life.decided(A, B)
    life = await restart(life)
    kept.follow(life)
    (logged,) = life.log.unended()
    life.driver.recover(logged.decision)
    assert kept.of(gtrid)[-1] == ("Recovered", None, "COMMITTING")
    assert kept.lines[-1]["effects"] == {"send": [["SendCommit", A], ["SendCommit", B]]}
    assert (kept.lines[-1]["epoch"], kept.lines[-2]["epoch"]) == (2, 1)


async def test_what_comes_after_the_end_moves_no_branch() -> None:
    life, kept = await traced()
    gtrid, _ = await life.decided(A, B)
    repeated = list(life.transport.calls)
    life.acknowledge(A, B)
    repeated[0].lose()
    assert kept.of(gtrid)[-1] == ("DeliveryFailed", "COMMITTED", "COMMITTED")
    assert kept.lines[-1]["branches"] == {A: ["COMMITTED", "COMMITTED"]}


async def test_a_sweep_and_an_operator_are_told() -> None:
    life, kept = await traced()
    assert life.driver.trace is not None
    life.driver.trace.started()
    life.driver.trace.swept("k3v9q2xw-1-0-0", A, Decision.ABORT)
    life.driver.trace.resolved("k3v9q2xw-1-0-0", "commit", True, "carol")
    life.driver.trace.stopped()
    assert [one["event"] for one in kept.lines] == ["Started", "OrphanSwept", "OperatorActed", "Stopped"]
    assert kept.lines[1]["fields"] == {"decision": "ABORT"}


async def test_a_trace_that_fails_sets_no_transaction_aside() -> None:
    life, kept = await traced()
    kept.lines = None  # type: ignore[assignment]  # a defect
    gtrid = life.begin(A, B)
    answers = life.commit(gtrid)
    life.vote(A, B)
    await forced()
    life.acknowledge(A, B)
    assert answers.only.transaction.settled


async def test_without_a_trace_nothing_is_told_and_all_goes_on() -> None:
    life = await start()
    assert life.driver.trace is None
    await life.committed(A, B)
    assert life.driver.counters["committed"] == 1
