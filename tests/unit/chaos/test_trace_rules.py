"""The outside checker: a right trace passes, and each rule fails on a trace that is wrong in its own way."""

from __future__ import annotations

import ast
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chaos import trace_check, trace_lines, trace_rules, trace_table
from chaos.trace_check import EXIT_BROKEN, EXIT_OK, EXIT_USAGE, check, main
from chaos.trace_lines import parse, read
from chaos.trace_rules import judge
from tests.architecture.source_tree import REPOSITORY

TraceLine = dict[str, Any]
TraceLines = list[TraceLine]

G = "k3v9q2xw-1-0m9xk2f1c-1"
A, B = "accounts.a1", "ledger.b1"
DEADLINE_S = 10.0


def coordinator(event: str, before: str | None, after: str | None, branch: str = "", **more: Any) -> TraceLine:
    return {"role": "coordinator", "name": "k3v9q2xw", "event": event, "gtrid": G, "branch": branch, "epoch": 1} | {
        "before": before,
        "after": after,
        "fields": {},
        **more,
    }


def participant(event: str, bqual: str, before: str | None, after: str | None, **more: Any) -> TraceLine:
    return {"role": "participant", "name": bqual, "event": event, "gtrid": G, "branch": bqual} | {
        "before": before,
        "after": after,
        "fields": {},
        **more,
    }


def started(epoch: int) -> TraceLine:
    return coordinator("Started", None, None) | {"gtrid": "", "epoch": epoch}


def vote(bqual: str, **effects: Any) -> TraceLine:
    fields = {"bqual": bqual, "vote": "YES", "now_s": 1.0}
    branches = {bqual: ["PREPARING", "IN_DOUBT"]}
    return coordinator(
        "VoteReceived", "PREPARING", "PREPARING", bqual, fields=fields, branches=branches, effects=effects
    )


def ended(bqual: str, after: str, **more: Any) -> TraceLine:
    branches = {bqual: ["IN_DOUBT", "COMMITTED"]}
    return coordinator("BranchEnded", "COMMITTING", after, bqual, branches=branches, **more)


def committed(bqual: str) -> TraceLines:
    fields = {"decision": "COMMIT", "fate": "COMMITTED", "outcome": "COMMITTED"}
    return [
        participant("COMMIT_MESSAGE", bqual, "IN_DOUBT", "IN_DOUBT", action="FINISH"),
        participant("Finished", bqual, None, None, fields=fields),
        participant("ENDED_COMMITTED", bqual, "IN_DOUBT", "COMMITTED", fields={"fate": "COMMITTED"}),
    ]


def prepared(bqual: str) -> TraceLines:
    return [
        participant("PREPARE_MESSAGE", bqual, None, "PREPARING", action="START"),
        participant("PREPARED", bqual, "PREPARING", "IN_DOUBT", fields={"vote": "YES"}),
    ]


def right() -> TraceLines:
    """A transaction over two branches that commits."""
    both = {A: ["ACTIVE", "PREPARING"], B: ["ACTIVE", "PREPARING"]}
    sends = [["SendPrepare", A], ["SendPrepare", B]]
    force = {"force": [A, B], "send_after_force": [["SendCommit", A], ["SendCommit", B]]}
    return [
        started(1),
        coordinator("Begun", None, "ACTIVE", fields={"deadline_s": DEADLINE_S}),
        coordinator("Enlisted", "ACTIVE", "ACTIVE", A, branches={A: [None, "ACTIVE"]}),
        coordinator("Enlisted", "ACTIVE", "ACTIVE", B, branches={B: [None, "ACTIVE"]}),
        coordinator("CommitRequested", "ACTIVE", "PREPARING", branches=both, effects={"send": sends}),
        *prepared(A),
        *prepared(B),
        vote(A),
        vote(B, **force),
        coordinator("DecisionStood", "PREPARING", "COMMITTING", fields={"decision": "COMMIT"}),
        *committed(A),
        ended(A, "COMMITTING"),
        *committed(B),
        ended(B, "COMMITTED", outcome="COMMITTED", effects={"end": {"outcome": "COMMITTED"}}),
        {"role": "client", "name": "", "event": "Told", "gtrid": G, "fields": {"outcome": "COMMITTED"}},
    ]


def broken(trace: TraceLines, *, at_rest: bool = True) -> set[str]:
    """The rules that a trace breaks."""
    unreadable: list[str] = []
    follower = judge(parse(text(trace), "trace", unreadable), at_rest=at_rest)
    assert unreadable == []
    return {one.rule for one in follower.broken}


def text(trace: TraceLines) -> str:
    common = {"v": 1, "pid": 7, "coordinator": "k3v9q2xw", "epoch": 1, "branch": ""}
    return "".join(json.dumps({**common, "unix_us": number, **line}) + "\n" for number, line in enumerate(trace))


def find(trace: TraceLines, event: str, branch: str = "") -> int:
    return next(n for n, line in enumerate(trace) if line["event"] == event and line.get("branch", "") in (branch, ""))


# -- ways to be wrong: each takes a right trace and spoils it --------------------------------------------------------


def skip_phase_one(trace: TraceLines) -> None:
    trace[find(trace, "CommitRequested")]["after"] = "COMMITTING"


def lose_a_vote_s_line(trace: TraceLines) -> None:
    trace[find(trace, "CommitRequested")]["before"] = "PREPARING"


def move_a_branch_between_two_lines(trace: TraceLines) -> None:
    trace[find(trace, "VoteReceived", A)]["branches"] = {A: ["ACTIVE", "IN_DOUBT"]}


def move_a_participant_s_branch_between_two_lines(trace: TraceLines) -> None:
    del trace[find(trace, "PREPARE_MESSAGE", A)]


def let_a_participant_forget_its_promise(trace: TraceLines) -> None:
    trace[find(trace, "COMMIT_MESSAGE", A)]["before"] = None


def let_a_participant_end_a_branch_by_its_deadline(trace: TraceLines) -> None:
    line = participant("DEADLINE_PASSED", A, "IN_DOUBT", "ABORTED")
    trace.insert(find(trace, "COMMIT_MESSAGE", A), line)


def send_commit_beside_the_force(trace: TraceLines) -> None:
    effects = trace[find(trace, "VoteReceived", B)]["effects"]
    effects["send"] = effects.pop("send_after_force")


def wait_for_a_force_that_nobody_wants(trace: TraceLines) -> None:
    del trace[find(trace, "VoteReceived", B)]["effects"]["force"]


def let_a_participant_hear_commit_first(trace: TraceLines) -> None:
    trace.insert(find(trace, "DecisionStood"), trace.pop(find(trace, "COMMIT_MESSAGE", A)))


def let_a_participant_commit_first(trace: TraceLines) -> None:
    trace.insert(find(trace, "DecisionStood"), trace.pop(find(trace, "Finished", A)))


def sweep_an_undecided_orphan_to_commit(trace: TraceLines) -> None:
    del trace[find(trace, "DecisionStood") :]
    del trace[find(trace, "VoteReceived", B)]
    trace.append(started(2))
    trace.append(coordinator("OrphanSwept", None, None, A, fields={"decision": "COMMIT"}, epoch=2))


def offer_a_second_record(trace: TraceLines) -> None:
    again = copy.deepcopy(trace[find(trace, "VoteReceived", B)])
    again["branches"] = {B: ["IN_DOUBT", "IN_DOUBT"]}
    trace.insert(find(trace, "DecisionStood"), again)


def find_a_record_that_nobody_offered(trace: TraceLines) -> None:
    del trace[find(trace, "VoteReceived", B) :]
    recovered = coordinator("Recovered", None, "COMMITTING", branches={A: [None, "IN_DOUBT"]}, epoch=2)
    trace += [started(2), recovered]


def roll_back_what_is_durable(trace: TraceLines) -> None:
    trace.insert(find(trace, "COMMIT_MESSAGE", A), participant("ROLLBACK_MESSAGE", A, "IN_DOUBT", "IN_DOUBT"))


def send_rollback_after_the_decision(trace: TraceLines) -> None:
    trace[find(trace, "BranchEnded", A)]["effects"] = {"send": [["SendRollback", B]]}


def sweep_a_durable_commit_away(trace: TraceLines) -> None:
    del trace[find(trace, "COMMIT_MESSAGE", A) :]
    trace += [started(2), coordinator("OrphanSwept", None, None, A, fields={"decision": "ABORT"}, epoch=2)]


def decide_after_the_deadline(trace: TraceLines) -> None:
    trace[find(trace, "VoteReceived", B)]["fields"]["now_s"] = DEADLINE_S + 0.001


def decide_without_a_vote(trace: TraceLines) -> None:
    vote_of_a = trace.pop(find(trace, "VoteReceived", A))
    trace[find(trace, "VoteReceived", B)]["branches"] |= vote_of_a["branches"]


def leave_a_branch_out_of_the_record(trace: TraceLines) -> None:
    trace[find(trace, "VoteReceived", B)]["effects"]["force"] = [B]


def count_a_yes_that_nobody_gave(trace: TraceLines) -> None:
    trace[find(trace, "PREPARED", A)] |= {
        "event": "PREPARE_FAILED",
        "after": "ABORTED",
        "fields": {"vote": "NO", "fate": "ABORTED"},
    }
    del trace[find(trace, "VoteReceived", B) + 1 :]


def vote_otherwise_when_asked_again(trace: TraceLines) -> None:
    again = participant("PREPARE_MESSAGE", A, "IN_DOUBT", "IN_DOUBT", action="ANSWER", answer={"vote": "NO"})
    trace.insert(find(trace, "COMMIT_MESSAGE", A), again)


def hear_another_vote(trace: TraceLines) -> None:
    trace.insert(find(trace, "VoteReceived", B), copy.deepcopy(trace[find(trace, "VoteReceived", A)]))
    trace[find(trace, "VoteReceived", A) + 1]["fields"]["vote"] = "READ_ONLY"
    trace[find(trace, "VoteReceived", A) + 1]["branches"] = {}


def end_a_branch_twice(trace: TraceLines) -> None:
    again = copy.deepcopy(trace[find(trace, "Finished", A)])
    again["fields"] = {"decision": "COMMIT", "fate": "ABORTED", "outcome": "ABORTED"}
    trace.append(again)


def raise_a_branch_from_the_dead(trace: TraceLines) -> None:
    tombstone = participant("ROLLBACK_MESSAGE", A, None, "ABORTED", action="FINISH")
    trace.insert(find(trace, "PREPARE_MESSAGE", A), tombstone)


def end_while_a_branch_is_in_doubt(trace: TraceLines) -> None:
    trace[find(trace, "BranchEnded", A)] |= {"after": "COMMITTED", "outcome": "COMMITTED"}
    del trace[find(trace, "BranchEnded", A) + 1 :]


def end_before_a_participant_has(trace: TraceLines) -> None:
    last = trace.pop(find(trace, "Finished", B))
    trace.remove(trace[find(trace, "ENDED_COMMITTED", B)])
    trace.append(last)


def start_an_epoch_twice(trace: TraceLines) -> None:
    trace.append(started(1))


def let_a_life_speak_that_was_followed(trace: TraceLines) -> None:
    trace.insert(find(trace, "BranchEnded", B), started(2))


def act_on_another_s_name(trace: TraceLines) -> None:
    trace.append(
        coordinator("OrphanSwept", None, None, A, fields={"decision": "ABORT"}, gtrid="0ther000-1-0m9xk2f1c-1")
    )


def begin_twice(trace: TraceLines) -> None:
    trace.insert(find(trace, "Enlisted", B), copy.deepcopy(trace[find(trace, "Begun")]))


def begin_a_name_of_an_earlier_life(trace: TraceLines) -> None:
    trace[find(trace, "Started")]["epoch"] = 2
    for line in trace:
        line["epoch"] = 2


def sweep_the_living(trace: TraceLines) -> None:
    line = coordinator("OrphanSwept", None, None, A, fields={"decision": "ABORT"})
    trace.insert(find(trace, "VoteReceived", A), line)


def tell_the_client_otherwise(trace: TraceLines) -> None:
    trace[find(trace, "Told")]["fields"]["outcome"] = "ABORTED"


def tell_another_client_otherwise(trace: TraceLines) -> None:
    fields = {"standing": "ABORT", "outcome": "ABORTED"}
    trace.append({"role": "client", "name": "auditor", "event": "Told", "gtrid": G, "fields": fields})


def roll_one_branch_back(trace: TraceLines) -> None:
    at = find(trace, "Finished", B)
    trace[at]["fields"] = {"decision": "COMMIT", "fate": "ABORTED", "outcome": "ABORTED"}
    trace[at + 1] |= {"event": "ENDED_ABORTED", "after": "ABORTED"}


def lose_lines(trace: TraceLines) -> None:
    trace.insert(5, {"event": "LinesLost", "lost": 3})


def leave_a_foreign_branch_in_doubt(trace: TraceLines) -> None:
    """Of a participant that writes no trace."""
    trace[:] = [line for line in trace if line["role"] != "participant"]
    del trace[find(trace, "BranchEnded", B) :]


def leave_a_branch_in_doubt(trace: TraceLines) -> None:
    del trace[find(trace, "COMMIT_MESSAGE", B) :]


WRONG: list[tuple[Callable[[TraceLines], None], str]] = [
    (skip_phase_one, "the table"),
    (let_a_participant_end_a_branch_by_its_deadline, "the table"),
    (lose_a_vote_s_line, "no gap"),
    (move_a_branch_between_two_lines, "no gap"),
    (move_a_participant_s_branch_between_two_lines, "no gap"),
    (let_a_participant_forget_its_promise, "no gap"),
    (send_commit_beside_the_force, "forced before sent"),
    (wait_for_a_force_that_nobody_wants, "forced before sent"),
    (let_a_participant_hear_commit_first, "forced before sent"),
    (let_a_participant_commit_first, "forced before sent"),
    (sweep_an_undecided_orphan_to_commit, "forced before sent"),
    (offer_a_second_record, "one decision"),
    (find_a_record_that_nobody_offered, "one decision"),
    (roll_back_what_is_durable, "one decision"),
    (send_rollback_after_the_decision, "one decision"),
    (sweep_a_durable_commit_away, "one decision"),
    (decide_after_the_deadline, "expiry binds the coordinator"),
    (decide_without_a_vote, "commit needs every vote"),
    (leave_a_branch_out_of_the_record, "commit needs every vote"),
    (count_a_yes_that_nobody_gave, "commit needs every vote"),
    (vote_otherwise_when_asked_again, "one answer"),
    (hear_another_vote, "one answer"),
    (end_a_branch_twice, "one answer"),
    (raise_a_branch_from_the_dead, "no resurrection"),
    (end_while_a_branch_is_in_doubt, "never forget a commit"),
    (end_before_a_participant_has, "never forget a commit"),
    (start_an_epoch_twice, "identity and epoch"),
    (let_a_life_speak_that_was_followed, "identity and epoch"),
    (act_on_another_s_name, "identity and epoch"),
    (begin_a_name_of_an_earlier_life, "identity and epoch"),
    (begin_twice, "one beginning"),
    (sweep_the_living, "recovery never races the living"),
    (tell_the_client_otherwise, "one outcome for all"),
    (tell_another_client_otherwise, "one outcome for all"),
    (roll_one_branch_back, "one outcome for all"),
    (lose_lines, "complete"),
    (leave_a_branch_in_doubt, "comes to rest"),
    (leave_a_foreign_branch_in_doubt, "comes to rest"),
]


def test_a_right_trace_breaks_no_rule() -> None:
    assert broken(right()) == set()


@pytest.mark.parametrize(("spoil", "rule"), WRONG, ids=[spoil.__name__ for spoil, _ in WRONG])
def test_a_rule_fails_on_a_trace_that_is_wrong_in_its_way(spoil: Callable[[TraceLines], None], rule: str) -> None:
    trace = copy.deepcopy(right())
    spoil(trace)
    assert rule in broken(trace)


def test_every_rule_of_the_page_is_broken_by_some_trace_here() -> None:
    page = (REPOSITORY / "docs" / "trace.md").read_text(encoding="utf-8")
    table = page.partition("| rule | what is checked |")[2].partition("\n\n")[0]
    rules = {line.split("|")[1].strip() for line in table.splitlines()[2:]}
    assert rules == {rule for _, rule in WRONG}


def test_what_is_unfinished_is_wrong_only_of_a_run_at_rest() -> None:
    trace = right()
    leave_a_branch_in_doubt(trace)
    assert broken(trace, at_rest=False) == set()


def test_of_a_transaction_that_changed_nothing_committed_and_aborted_are_one() -> None:
    """A read-only transaction leaves no record, so the coordinator's next life presumes its abort."""
    read_only = {"bqual": A, "vote": "READ_ONLY", "now_s": 1.0}
    branches = {A: ["PREPARING", "COMMITTED"]}
    voted = {"fields": read_only, "branches": branches, "outcome": "COMMITTED"}
    presumed = {"role": "client", "name": "", "event": "Told", "gtrid": G, "fields": {"outcome": "ABORTED"}}
    trace = [*right()[:3], coordinator("CommitRequested", "ACTIVE", "PREPARING", branches={A: ["ACTIVE", "PREPARING"]})]
    last_vote = coordinator("VoteReceived", "PREPARING", "COMMITTED", A) | voted
    assert broken([*trace, last_vote, presumed]) == set()


def test_a_branch_that_asked_for_itself_is_at_rest_before_its_coordinator_knows() -> None:
    trace = right()
    del trace[find(trace, "BranchEnded", B) :]
    assert broken(trace) == set()


def test_of_a_transaction_from_before_the_trace_nothing_is_concluded_from_what_is_missing() -> None:
    trace = right()[find(right(), "COMMIT_MESSAGE", A) :]
    for line in trace:
        line["epoch"] = 2
    in_doubt = {A: [None, "IN_DOUBT"], B: [None, "IN_DOUBT"]}
    recovered = coordinator("Recovered", None, "COMMITTING", branches=in_doubt, epoch=2)
    assert broken([started(2), recovered, *trace]) == set()


def test_what_a_person_did_by_force_is_counted_and_not_judged() -> None:
    trace = right()
    roll_one_branch_back(trace)
    acted = {"action": "rollback", "heuristic": True, "operator": "carol"}
    trace.insert(find(trace, "COMMIT_MESSAGE", A), coordinator("OperatorActed", None, None, fields=acted))
    follower = judge(parse(text(trace), "trace", []))
    assert (follower.broken, follower.by_hand) == ([], {G})


def test_the_checker_s_tables_are_the_published_ones() -> None:
    page = (REPOSITORY / "docs" / "states.md").read_text(encoding="utf-8")
    assert trace_table.COORDINATOR.strip() in page
    assert trace_table.PARTICIPANT.strip() in page


@pytest.mark.parametrize("module", [trace_check, trace_lines, trace_rules, trace_table])
def test_the_checker_imports_nothing_of_the_product(module: Any) -> None:
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {name.split(".")[0] for name in imported} & {"coordinator", "participant", "handfast"}


# -- files -------------------------------------------------------------------------------------------------------------


def test_files_of_several_processes_are_merged_by_their_time(tmp_path: Path) -> None:
    whole = text(right()).splitlines(keepends=True)
    for role in ("coordinator", "participant", "client"):
        (tmp_path / role).write_text("".join(line for line in whole if f'"role": "{role}"' in line))
    traces = read(sorted(tmp_path.iterdir()))
    assert [line.unix_us for line in traces.lines] == list(range(len(whole)))
    assert check(traces, at_rest=True).broken == []


def test_a_clock_that_jumps_back_does_not_reorder_a_file(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in text(right()).splitlines()]
    for line in lines[8:]:
        line["unix_us"] -= 1_000_000
    (tmp_path / "trace").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert check(read([tmp_path / "trace"])).broken == []


def test_a_line_that_can_t_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(text(right()) + '{"v": 1, "eve')
    (found,) = check(read([tmp_path / "trace"])).broken
    assert (found.rule, found.where) == ("complete", f"{tmp_path / 'trace'}:{len(right()) + 1}")


def test_the_program_says_what_is_broken_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, wrong = tmp_path / "right", tmp_path / "wrong"
    path.write_text(text(right()))
    trace = right()
    decide_after_the_deadline(trace)
    wrong.write_text(text(trace))
    assert main([str(path), "--at-rest"]) == EXIT_OK
    assert "4 processes: every rule held" in capsys.readouterr().out
    assert main([str(wrong)]) == EXIT_BROKEN
    assert f"{wrong}:11: expiry binds the coordinator: commit is chosen 0.001000 s late" in capsys.readouterr().out
    assert main([str(tmp_path / "none")]) == EXIT_USAGE


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(text(right()))
    command = [sys.executable, "-m", "chaos.trace_check", str(tmp_path / "trace")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "21 lines, 1 transactions, 4 processes: every rule held\n")
