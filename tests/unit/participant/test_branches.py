"""What one instance answers: duplicates, late and reordered messages, and how much of it is remembered."""

import ast
import sys
from itertools import product
from pathlib import Path

import pytest

import participant.protocol
from participant.protocol import (
    ENDED,
    OUTCOMES,
    RESPONSES,
    TRANSITIONS,
    Action,
    Branches,
    Cause,
    Decision,
    Ended,
    Event,
    Fate,
    Message,
    Outcome,
    ProtocolViolated,
    State,
    Vote,
    Voted,
    memory,
)

OURS = "accounts.one"
LATE_S = 60.0
FAR_S = 1_000.0


@pytest.fixture(params=[1, memory.FOLDED_TOGETHER], ids=["folded at once", "folded later"], autouse=True)
def fold(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is answered is the same however an ended branch is kept."""
    monkeypatch.setattr(memory, "FOLDED_TOGETHER", request.param)


def make(**limits: float) -> Branches:
    return Branches(OURS, **limits)  # type: ignore[arg-type]  # counts are ints, ages floats


def prepare(branches: Branches, gtrid: str = "g", *, born_ms: int = 1, now_s: float = 0.0, operations: bool = False):  # type: ignore[no-untyped-def]  # a Step
    return branches.on_prepare(gtrid, OURS, born_ms, FAR_S, now_s, operations=operations)


def in_doubt(branches: Branches, gtrid: str = "g", *, born_ms: int = 1):  # type: ignore[no-untyped-def]  # a Branch
    branch = branches.begin(gtrid, born_ms, FAR_S)
    prepare(branches, gtrid, born_ms=born_ms)
    branches.on_prepared(branch, "pg:7", 0.0)
    return branch


def vote_of(answer: object) -> tuple[Vote, str]:
    assert isinstance(answer, Voted)
    return answer.vote, answer.cause.code if answer.cause else ""


def test_every_message_has_a_response_in_every_state() -> None:
    assert set(RESPONSES) == set(product(Message, [None, *State]))


def test_every_decision_and_fate_has_an_outcome() -> None:
    assert set(OUTCOMES) == set(product(Decision, Fate))


def test_nothing_leads_out_of_an_end() -> None:
    assert [pair for pair in TRANSITIONS if pair[0] in ENDED] == []


def test_a_promise_is_broken_by_nothing_but_an_end_or_the_lookup_of_a_lost_answer() -> None:
    leaving = {event for (state, event), to in TRANSITIONS.items() if state is State.IN_DOUBT and to is not state}
    ends = {Event.ENDED_COMMITTED, Event.ENDED_ABORTED, Event.ENDED_UNPROVED}
    assert leaving == ends | {Event.PREPARE_FAILED}


def test_a_pair_that_is_not_in_the_table_raises_with_the_gtrid() -> None:
    branches = make()
    branch = in_doubt(branches)
    with pytest.raises(ProtocolViolated, match="g is in doubt"):
        branches.on_deadline(branch, 0.0)


def test_the_protocol_imports_the_pure_part_of_the_standard_library_only() -> None:
    impure = {"asyncio", "logging", "os", "random", "socket", "threading", "time"}
    names = set()
    for path in Path(participant.protocol.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("participant.protocol"):
                names.add((node.module or "").split(".")[0])
    assert names <= set(sys.stdlib_module_names) - impure


# -- phase one ---------------------------------------------------------------------------------------------------------


def test_prepare_of_an_active_branch_prepares_it() -> None:
    branches = make()
    branch = branches.begin("g", 1, FAR_S)
    assert (prepare(branches).action, branch.state) == (Action.PREPARE, State.PREPARING)


def test_a_duplicate_prepare_waits_while_the_first_is_under_way_and_repeats_its_vote_after() -> None:
    branches = make()
    branch = branches.begin("g", 1, FAR_S)
    prepare(branches)
    assert prepare(branches).action is Action.WAIT
    voted = branches.on_prepared(branch, "pg:7", 0.0)
    assert (voted.vote, prepare(branches).answer) == (Vote.YES, voted)


@pytest.mark.parametrize("bqual", [OURS, "accounts.two"])
def test_prepare_of_a_branch_that_is_not_held_votes_no(bqual: str) -> None:
    step = make().on_prepare("g", bqual, 1, FAR_S, 0.0, operations=bqual != OURS)
    assert vote_of(step.answer) == (Vote.NO, "BRANCH_UNKNOWN")


def test_prepare_with_operations_starts_a_branch() -> None:
    step = prepare(make(), operations=True)
    assert (step.action, step.branch and step.branch.state) == (Action.START, State.PREPARING)


def test_prepare_after_the_deadline_votes_no_and_ends_the_branch() -> None:
    branches = make()
    branch = branches.begin("g", 1, 5.0)
    step = prepare(branches, now_s=5.0)
    assert (step.action, branch.state) == (Action.ROLL_BACK_OPEN, State.ABORTED)
    assert vote_of(prepare(branches, now_s=5.0).answer) == (Vote.NO, "DEADLINE_PASSED")


def test_one_shot_work_past_its_deadline_is_not_begun() -> None:
    step = make().on_prepare("g", OURS, 1, 5.0, 5.0, operations=True)
    assert vote_of(step.answer) == (Vote.NO, "DEADLINE_PASSED")


def test_work_that_failed_votes_no_with_its_reason() -> None:
    branches = make()
    branch = branches.begin("g", 1, FAR_S)
    branches.on_work_failed(branch, Cause("BRANCH_FAILED", "no such account"), 0.0)
    answer = prepare(branches).answer
    assert isinstance(answer, Voted)
    assert answer.cause == Cause("BRANCH_FAILED", "no such account")


def test_a_rollback_that_overtakes_its_prepare_leaves_a_tombstone() -> None:
    branches = make()
    assert branches.on_rollback("g", OURS, 1, 0.0).action is Action.FINISH
    for operations in (False, True):
        assert vote_of(prepare(branches, operations=operations).answer) == (Vote.NO, "ROLLED_BACK_FIRST")


def test_a_rollback_of_another_instances_branch_leaves_none() -> None:
    branches = make()
    branches.on_rollback("g", "accounts.two", 1, 0.0)
    assert branches.find("g") is None


def test_a_tombstone_asks_the_resource_until_it_has_answered() -> None:
    branches = make()
    branches.on_rollback("g", OURS, 1, 0.0)
    assert branches.on_rollback("g", OURS, 1, 0.0).action is Action.FINISH
    tombstone = branches.find("g")
    assert tombstone is not None
    branches.on_ended(tombstone, Fate.COMMITTED, "it says so", 0.0)
    answer = branches.on_rollback("g", OURS, 1, 0.0).answer
    assert answer == Ended(Outcome.HEURISTIC_COMMIT, "it says so")


def test_a_rollback_during_prepare_makes_the_vote_no_and_leaves_the_branch_to_be_finished() -> None:
    branches = make()
    branch = branches.begin("g", 1, FAR_S)
    prepare(branches)
    assert branches.on_rollback("g", OURS, 1, 0.0).action is Action.WAIT
    assert vote_of(branches.on_prepared(branch, "pg:7", 0.0)) == (Vote.NO, "ROLLED_BACK_FIRST")
    assert branches.on_rollback("g", OURS, 1, 0.0).action is Action.FINISH


def test_a_deadline_during_prepare_names_itself_as_the_cause_of_the_failure_it_brings() -> None:
    branches = make()
    branch = branches.begin("g", 1, FAR_S)
    prepare(branches)
    branches.on_deadline(branch, 0.0)
    voted = branches.on_prepare_failed(branch, Cause("OPERATION_FAILED", "closed"), 0.0)
    assert vote_of(voted) == (Vote.NO, "DEADLINE_PASSED")


def test_a_lost_answer_leaves_the_branch_in_doubt_and_a_repeat_looks() -> None:
    branches = make()
    branch = branches.begin("g", 1, FAR_S)
    prepare(branches)
    branches.on_operated(branch, (b"result",))
    branches.on_answer_lost(branch, "pg:7", 0.0)
    assert (branch.state, prepare(branches).action) == (State.IN_DOUBT, Action.LOOK)
    assert branches.on_prepared(branch, "pg:7", 0.0) == Voted(Vote.YES, "pg:7", results=(b"result",))


# -- one phase ---------------------------------------------------------------------------------------------------------


def one_phase(branches: Branches, *, bqual: str = OURS, born_ms: int = 1, operations: bool = False):  # type: ignore[no-untyped-def]  # a Step
    return branches.on_commit_one_phase("g", bqual, born_ms, FAR_S, 0.0, operations=operations)


def test_one_phase_commit_repeats_its_answer() -> None:
    branches = make()
    branch = branches.begin("g", 1, FAR_S)
    assert one_phase(branches).action is Action.COMMIT_OPEN
    ended = branches.on_committed_open(branch, "pg:7", 0.0)
    assert (ended.outcome, one_phase(branches).answer) == (Outcome.COMMITTED, ended)


def test_one_phase_commit_of_a_branch_never_seen_is_an_abort() -> None:
    answer = one_phase(make()).answer
    assert isinstance(answer, Ended)
    assert answer.outcome is Outcome.ABORTED


def test_one_phase_commit_that_may_have_been_forgotten_is_a_hazard() -> None:
    """Never ABORTED for something that may have committed."""
    branches = make()
    branches.on_committed_open(_committing(branches), "pg:7", 0.0)
    branches.forget("g")
    answer = one_phase(branches).answer
    assert isinstance(answer, Ended)
    assert answer.outcome is Outcome.HEURISTIC_HAZARD


def _committing(branches: Branches):  # type: ignore[no-untyped-def]  # a Branch
    branch = branches.begin("g", 1, FAR_S)
    one_phase(branches)
    return branch


def test_one_phase_commit_of_another_instances_branch_is_a_hazard() -> None:
    answer = one_phase(make(), bqual="accounts.two", operations=True).answer
    assert isinstance(answer, Ended)
    assert answer.outcome is Outcome.HEURISTIC_HAZARD


def test_one_phase_commit_of_a_prepared_branch_is_refused() -> None:
    branches = make()
    in_doubt(branches)
    assert one_phase(branches).action is Action.REFUSE


# -- phase two ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fate", "to_commit", "to_rollback"),
    [
        (Fate.COMMITTED, Outcome.COMMITTED, Outcome.HEURISTIC_COMMIT),
        (Fate.ABORTED, Outcome.HEURISTIC_ROLLBACK, Outcome.ABORTED),
        (Fate.UNPROVED, Outcome.HEURISTIC_HAZARD, Outcome.ABORTED),
    ],
)
def test_what_became_of_a_branch_is_measured_against_what_is_asked(
    fate: Fate, to_commit: Outcome, to_rollback: Outcome
) -> None:
    branches = make()
    branches.on_ended(in_doubt(branches), fate, "it says so", 0.0)
    commit, rollback = branches.on_commit("g", OURS).answer, branches.on_rollback("g", OURS, 1, 0.0).answer
    assert isinstance(commit, Ended)
    assert isinstance(rollback, Ended)
    assert (commit.outcome, rollback.outcome) == (to_commit, to_rollback)


@pytest.mark.parametrize("bqual", [OURS, "accounts.two"])
def test_commit_of_a_branch_that_is_not_held_is_finished_by_name(bqual: str) -> None:
    assert make().on_commit("g", bqual).action is Action.FINISH


def test_commit_of_a_branch_that_was_not_prepared_is_refused() -> None:
    branches = make()
    branches.begin("g", 1, FAR_S)
    assert branches.on_commit("g", OURS).action is Action.REFUSE


def test_a_read_only_branch_agrees_with_either_decision() -> None:
    branches = make()
    branch = branches.begin("g", 1, FAR_S)
    prepare(branches)
    branches.on_read_only(branch, 0.0)
    assert branches.on_commit("g", OURS).answer == Ended(Outcome.COMMITTED)
    assert branches.on_rollback("g", OURS, 1, 0.0).answer == Ended(Outcome.ABORTED)


# -- memory ------------------------------------------------------------------------------------------------------------


def end(branches: Branches, gtrid: str, born_ms: int, now_s: float) -> None:
    branch = in_doubt(branches, gtrid, born_ms=born_ms)
    branches.on_ended(branch, Fate.COMMITTED, "", now_s)


def test_no_more_than_the_count_is_remembered() -> None:
    branches = make(memory_count_max=3)
    for number in range(10):
        end(branches, f"g{number}", number, 0.0)
    assert (branches.remembered_count(), branches.find("g6"), branches.find("g7") is not None) == (3, None, True)


def test_nothing_is_remembered_past_its_age() -> None:
    branches = make(memory_age_s=10.0, late_s=1.0)
    branches.on_rollback("g", OURS, 1, 0.0)
    branches.forget_old(9.9)
    assert branches.find("g") is not None
    branches.forget_old(10.0)
    assert branches.find("g") is None


def test_an_answer_is_kept_past_its_deadline_however_short_the_memory() -> None:
    branches = make(memory_age_s=1.0, late_s=LATE_S)
    end(branches, "g", 1, 0.0)
    branches.forget_old(FAR_S + LATE_S - 1)
    assert branches.find("g") is not None


def test_a_branch_that_is_prepared_again_is_ended_in_the_resource_and_not_from_memory() -> None:
    """Its database was restored to an earlier point; answered from memory, it would stay locked for ever."""
    branches = make()
    end(branches, "g", born_ms=1, now_s=10.0)
    assert branches.on_commit("g", OURS).action is Action.ANSWER
    assert not branches.on_found_prepared("g", asked_s=10.0), "it ended after the listing was asked for"
    assert branches.on_commit("g", OURS).action is Action.ANSWER
    assert branches.on_found_prepared("g", asked_s=10.5)
    assert branches.on_commit("g", OURS).action is Action.FINISH


def test_a_branch_in_doubt_and_one_never_seen_are_prepared_without_a_contradiction() -> None:
    branches = make()
    in_doubt(branches)
    assert not branches.on_found_prepared("g", asked_s=1e9)
    assert not branches.on_found_prepared("never-seen", asked_s=1e9)
    assert [branch.gtrid for branch in branches.in_doubt()] == ["g"]


def test_branches_in_doubt_are_never_forgotten() -> None:
    branches = make(memory_count_max=1, memory_age_s=1.0, late_s=1.0)
    in_doubt(branches, "kept")
    for number in range(5):
        end(branches, f"g{number}", number, 0.0)
    branches.forget_old(1e9)
    assert [branch.gtrid for branch in branches.in_doubt()] == ["kept"]


def test_one_shot_work_that_may_be_a_forgotten_repeat_is_not_done_again() -> None:
    branches = make(memory_count_max=1)
    end(branches, "old", 5, 0.0)
    end(branches, "new", 6, 0.0)  # "old" is forgotten before its deadline
    assert vote_of(prepare(branches, "old", born_ms=5, operations=True).answer) == (Vote.NO, "BRANCH_UNKNOWN")
    assert prepare(branches, "young", born_ms=6, operations=True).action is Action.START


def test_forgetting_in_good_time_refuses_nobody() -> None:
    branches = make(memory_age_s=1.0, late_s=1.0)
    end(branches, "old", 5, 0.0)
    branches.forget_old(FAR_S + 2)
    assert branches.find("old") is None
    step = branches.on_prepare("other", OURS, 4, 2 * FAR_S, FAR_S + 2, operations=True)
    assert step.action is Action.START
