"""Following a run from its trace alone: what must hold of what the processes say of themselves.

The rules are the ten invariants of docs/ARCHITECTURE.md, as far as they show in a trace (docs/trace.md names them, each
for itself). Nothing of the product is imported: the tables are ``trace_table``'s own, all else is read off the lines.

A trace may begin when a run was under way. Of a transaction that is older than the first life which the trace shows of
its coordinator, nothing is concluded from what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos import trace_table
from chaos.trace_lines import Line

COMMITTED, ABORTED = "COMMITTED", "ABORTED"
COMMIT, ABORT = "COMMIT", "ABORT"
FINAL = {COMMITTED, ABORTED, "FORGOTTEN"}
DECIDED = {"COMMITTING": COMMITTED, "ABORTING": ABORTED, COMMITTED: COMMITTED, ABORTED: ABORTED}
AT_REST = "comes to rest"
"""The rule that holds at the end only."""

_EXCUSED = {"one outcome for all", "one answer", "one decision", "forced before sent", "never forget a commit"}
_COORDINATOR_STEPS = trace_table.rows(trace_table.COORDINATOR)
_PARTICIPANT_STEPS = trace_table.rows(trace_table.PARTICIPANT)


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that does not hold.

    Args:
        rule: which.
        gtrid: the transaction; empty when none is concerned.
        where: the line at which it shows.
        detail: what was seen.
    """

    rule: str
    gtrid: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}: {self.detail}" + (f" ({self.gtrid})" if self.gtrid else "")


@dataclass(slots=True)
class Followed:
    """What the lines so far say of one transaction.

    Args:
        whole: whether the trace was on when it began.
        state: where its coordinator's machine stands, in the life that drives it.
        deadline_s: until when it may decide commit, by its coordinator's clock.
        branches: where each branch stands for the coordinator, by bqual.
        votes: what each branch voted, as the coordinator heard it.
        offered: the branches of the commit record that was given to the log.
        durable: whether a commit record is known to be durable.
        aborted: whether its coordinator decided the abort.
        by_hand: whether an operator, or somebody past everybody, had a hand in it.
        changed_nothing: whether it was committed without a record, because every branch was read-only. Committed and
            aborted are one and the same then, and its coordinator's next life presumes the abort.
        said: who first said COMMITTED and ABORTED.
        prepared: branches that voted YES, as their participants say.
        ends: how branches that were prepared ended, as their participants say.
    """

    whole: bool = False
    state: str | None = None
    deadline_s: float | None = None
    branches: dict[str, str] = field(default_factory=dict)
    votes: dict[str, str] = field(default_factory=dict)
    offered: frozenset[str] | None = None
    durable: bool = False
    aborted: bool = False
    by_hand: bool = False
    changed_nothing: bool = False
    said: dict[str, str] = field(default_factory=dict)
    prepared: set[str] = field(default_factory=set)
    ends: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Held:
    """What the lines so far say of a branch, at the process that holds it.

    Args:
        state: where it stands; None when the process knows nothing of it.
        answered: its first vote.
        rolled_back: whether it ended by a rollback.
    """

    state: str | None = None
    answered: str = ""
    rolled_back: bool = False


class Follower:
    """Takes lines, and remembers what they break."""

    def __init__(self) -> None:
        self._broken: list[Broken] = []
        self.transactions: dict[str, Followed] = {}
        self.lives: dict[str, list[int]] = {}
        self._held: dict[tuple[str, int, str], Held] = {}
        self._participants: set[str] = set()
        self._takes: dict[str, Callable[[Line, Followed], None]] = {
            "coordinator": self._on_coordinator,
            "participant": self._on_participant,
            "client": self._on_client,
        }

    def follow(self, lines: Iterable[Line]) -> None:
        """Take lines, in the order in which they happened."""
        for line in lines:
            if line.event == "LinesLost":
                self._say("complete", line, f"{line.lost} lines are missing here")
            elif line.event == "Started":
                self._on_started(line)
            elif line.gtrid and line.role in self._takes:
                self._takes[line.role](line, self._followed(line.gtrid))

    def at_rest(self) -> None:
        """Judge what is left, of a run that has come to rest."""
        for gtrid, seen in self.transactions.items():
            in_doubt = set(seen.prepared)
            if seen.durable and seen.state not in FINAL:
                # Of branches whose participants write no trace. One that asked has ended before its coordinator hears.
                in_doubt |= seen.offered or set()
            if left := sorted(in_doubt - seen.ends.keys()):
                self._broken.append(Broken(AT_REST, gtrid, "end", f"{', '.join(left)} stays in doubt"))

    @property
    def broken(self) -> list[Broken]:
        """The rules that do not hold. What people bring about with psql or by force shows before anybody can call it by
        its name, so that is excused here and not where it is found."""
        return [one for one in self._broken if one.rule not in _EXCUSED or one.gtrid not in self.by_hand]

    @property
    def by_hand(self) -> set[str]:
        """Transactions in which a person had a hand, as far as the processes found out."""
        return {gtrid for gtrid, seen in self.transactions.items() if seen.by_hand}

    # -- lives -----------------------------------------------------------------------------------------------------

    def _on_started(self, line: Line) -> None:
        lives = self.lives.setdefault(line.coordinator, [])
        if lives and line.epoch <= lives[-1]:
            self._say("identity and epoch", line, f"epoch {line.epoch} comes after epoch {lives[-1]}")
        lives.append(line.epoch)

    def _followed(self, gtrid: str) -> Followed:
        found = self.transactions.get(gtrid)
        if found is None:
            coordinator_id, epoch, *_ = gtrid.split("-")
            lives = self.lives.get(coordinator_id, [])
            found = self.transactions[gtrid] = Followed(whole=any(life <= int(epoch, 36) for life in lives[:1]))
        return found

    # -- the coordinator -------------------------------------------------------------------------------------------

    def _on_coordinator(self, line: Line, seen: Followed) -> None:
        self._check_life(line)
        match line.event:
            case "Begun":
                self._on_begun(line, seen)
            case "Recovered":
                self._on_recovered(line, seen)
            case "OrphanSwept":
                self._on_swept(line, seen)
            case "OperatorActed":
                seen.by_hand |= bool(line.fields.get("heuristic"))
            case _:
                self._on_step(line, seen)
        for bqual, (_, state) in (line.branches or {}).items():
            seen.branches[bqual] = state

    def _check_life(self, line: Line) -> None:
        coordinator_id, epoch, *_ = line.gtrid.split("-")
        lives = self.lives.get(line.coordinator, [line.epoch])
        if coordinator_id != line.coordinator or int(epoch, 36) > line.epoch:
            self._say("identity and epoch", line, f"{line.coordinator} in epoch {line.epoch} acts on it")
        if line.epoch != lives[-1]:
            self._say("identity and epoch", line, f"epoch {line.epoch} writes, and {lives[-1]} has started")

    def _on_begun(self, line: Line, seen: Followed) -> None:
        if seen.state is not None:
            self._say("one beginning", line, f"it begins, and was {seen.state}")
        if line.gtrid.split("-")[1:2] and int(line.gtrid.split("-")[1], 36) != line.epoch:
            self._say("identity and epoch", line, f"a name of another life begins in epoch {line.epoch}")
        seen.state, seen.deadline_s = "ACTIVE", line.fields.get("deadline_s")

    def _on_recovered(self, line: Line, seen: Followed) -> None:
        named = frozenset(line.branches or ())
        if seen.whole and seen.offered is None:
            self._say("one decision", line, "a commit record comes back that was never offered")
        if seen.aborted:
            self._say("one decision", line, "a commit record comes back, and its abort was decided")
        seen.durable, seen.state = True, line.after
        seen.offered = seen.offered or named
        seen.votes |= dict.fromkeys(named, "YES")
        self._check_sends(line, seen)

    def _on_swept(self, line: Line, seen: Followed) -> None:
        decision, driven = line.fields.get("decision"), seen.state is not None and seen.state not in FINAL
        if driven and line.epoch == int(line.gtrid.split("-")[1], 36):
            self._say("recovery never races the living", line, f"{line.branch} is swept, and it is {seen.state}")
        if decision == COMMIT and seen.whole and seen.offered is None:
            self._say("forced before sent", line, f"{line.branch} is told to commit without a record")
        seen.durable |= decision == COMMIT  # the sweep has read it in the log
        if decision == ABORT and seen.durable and line.branch in (seen.offered or ()):
            self._say("one decision", line, f"{line.branch} is told to roll back, and its commit is durable")

    def _on_step(self, line: Line, seen: Followed) -> None:
        allowed = _COORDINATOR_STEPS.get((line.event, line.before))
        if allowed is None or line.after not in allowed:
            self._say("the table", line, f"{line.event} takes it from {line.before} to {line.after}")
        if seen.state not in (line.before, None) or (seen.state is None and seen.whole):
            self._say("no gap", line, f"it was {seen.state}, and this step begins at {line.before}")
        for bqual, (before, _) in (line.branches or {}).items():
            if before is not None and seen.branches.get(bqual, before) != before:
                self._say("no gap", line, f"{bqual} was {seen.branches[bqual]}, and this step begins at {before}")
        seen.state = line.after
        self._take_event(line, seen)
        self._check_force(line, seen)
        self._check_sends(line, seen)
        self._check_end(line, seen)

    def _take_event(self, line: Line, seen: Followed) -> None:
        bqual = line.branch
        if line.event == "VoteReceived":
            first = seen.votes.setdefault(bqual, line.fields["vote"])
            if first != line.fields["vote"]:
                self._say("one answer", line, f"{bqual} votes {line.fields['vote']}, and voted {first}")
        elif line.event == "DecisionStood" and line.fields["decision"] == COMMIT:
            if seen.offered is None:
                self._say("one decision", line, "a commit stands that was never offered")
            seen.durable = True
        elif line.event == "ResolvedAgainstDecision":
            seen.by_hand = True

    # -- what came out of a step -----------------------------------------------------------------------------------

    def _check_force(self, line: Line, seen: Followed) -> None:
        effects = line.effects
        if effects.get("send_after_force") and "force" not in effects:
            self._say("forced before sent", line, "messages wait for a force, and there is none")
        commits = (
            line.after == COMMITTED and line.before in ("ACTIVE", "PREPARING") and line.event != "OnePhaseAnswered"
        )
        if "force" not in effects and not commits:
            return
        now_s = line.fields.get("now_s")
        if now_s is not None and seen.deadline_s is not None and now_s > seen.deadline_s:
            self._say("expiry binds the coordinator", line, f"commit is chosen {now_s - seen.deadline_s:.6f} s late")
        missing = [bqual for bqual in seen.branches if seen.votes.get(bqual) not in ("YES", "READ_ONLY")]
        if missing:
            self._say("commit needs every vote", line, f"commit is chosen without the yes of {', '.join(missing)}")
        seen.changed_nothing = "force" not in effects
        if "force" in effects:
            self._check_record(line, seen, frozenset(effects["force"]))

    def _check_record(self, line: Line, seen: Followed, named: frozenset[str]) -> None:
        if named != {bqual for bqual, vote in seen.votes.items() if vote == "YES"}:
            self._say("commit needs every vote", line, f"the record names {sorted(named)}, and YES came from others")
        unsaid = sorted((named & self._participants) - seen.prepared)
        if unsaid:
            self._say("commit needs every vote", line, f"{', '.join(unsaid)} counts as YES, and never prepared")
        if seen.offered is not None or seen.durable or seen.aborted:
            self._say("one decision", line, "a second decision is offered to the log")
        seen.offered = named

    def _check_sends(self, line: Line, seen: Followed) -> None:
        for kind, bqual in line.effects.get("send", ()):
            if kind == "SendCommit" and not seen.durable:
                self._say("forced before sent", line, f"Commit to {bqual} leaves, and no record is durable")
            elif kind == "SendCommit" and seen.votes.get(bqual) != "YES":
                self._say("commit needs every vote", line, f"Commit to {bqual} leaves, which did not vote YES")
            elif kind == "SendRollback" and (seen.durable or line.after != "ABORTING"):
                self._say("one decision", line, f"Rollback to {bqual} leaves in {line.after}")
            elif kind in ("SendPrepare", "SendCommitOnePhase") and line.after != "PREPARING":
                self._say("the table", line, f"{kind} to {bqual} leaves in {line.after}")

    def _check_end(self, line: Line, seen: Followed) -> None:
        if line.after in ("ABORTING", ABORTED) and line.outcome != "HEURISTIC_HAZARD":
            seen.aborted = True
        heuristic = str(line.outcome or "").startswith("HEURISTIC")
        seen.by_hand |= heuristic
        if line.after == COMMITTED and line.before != COMMITTED and not heuristic:
            now = seen.branches | {bqual: states[1] for bqual, states in (line.branches or {}).items()}
            yes = {bqual for bqual, vote in seen.votes.items() if vote == "YES"}
            left = sorted(bqual for bqual in yes if now.get(bqual) == "IN_DOUBT")
            left += sorted((seen.prepared & yes) - seen.ends.keys() - set(left))
            if left:
                self._say("never forget a commit", line, f"it ends, and {', '.join(left)} has not committed")
        if line.after in DECIDED and (line.after != ABORTED or line.outcome == ABORTED):
            self._claim(line, seen, DECIDED[line.after])

    # -- participants and clients ----------------------------------------------------------------------------------

    def _on_participant(self, line: Line, seen: Followed) -> None:
        self._participants.add(line.name)
        if line.event == "Finished":
            self._on_finished(line, seen)
            return
        if line.event == "COMMIT_MESSAGE" and seen.whole and not seen.durable:
            self._say("forced before sent", line, f"{line.branch} hears Commit, and no record is durable")
        if line.event == "ROLLBACK_MESSAGE" and self._is_committed(line, seen):
            self._say("one decision", line, f"{line.branch} hears Rollback, and its commit is durable")
        if line.branch == line.name:
            begins_at = None if seen.whole else line.before
            self._on_own(line, seen, self._held.setdefault((line.name, line.pid, line.gtrid), Held(begins_at)))

    def _is_committed(self, line: Line, seen: Followed) -> bool:
        return seen.durable and line.branch in (seen.offered or ())

    def _on_own(self, line: Line, seen: Followed, held: Held) -> None:
        forgotten = line.before is None and held.state in (COMMITTED, ABORTED)
        if line.before != held.state and not forgotten:
            self._say("no gap", line, f"{line.branch} was {held.state}, and this begins at {line.before}")
        allowed = _PARTICIPANT_STEPS.get((line.event, line.before))
        known = line.event == "Begun" or line.event.endswith("_MESSAGE")
        if not known and line.after not in (allowed or ()):
            self._say("the table", line, f"{line.event} takes {line.branch} from {line.before} to {line.after}")
        self._take_answer(line, seen, held)
        held.state = line.after
        if line.event in ("ENDED_COMMITTED", "ENDED_ABORTED", "ENDED_UNPROVED"):
            self._end(line, seen, {"ENDED_COMMITTED": COMMITTED, "ENDED_ABORTED": ABORTED}.get(line.event, "UNPROVED"))
        held.rolled_back |= line.event in ("ENDED_ABORTED", "ROLLBACK_MESSAGE") and line.after == ABORTED

    def _take_answer(self, line: Line, seen: Followed, held: Held) -> None:
        """A vote, at first or again."""
        voted = line.event in ("PREPARED", "FOUND_READ_ONLY", "PREPARE_FAILED") and not line.fields.get("one_phase")
        vote = line.fields.get("vote") if voted else (line.answer or {}).get("vote")
        if not vote:
            return
        held.answered = held.answered or vote
        if held.answered != vote:
            self._say("one answer", line, f"{line.branch} votes {vote}, and voted {held.answered}")
        if vote == "YES" and voted:
            seen.prepared.add(line.branch)
            if held.rolled_back:
                self._say("no resurrection", line, f"{line.branch} is prepared, and was rolled back")

    def _on_finished(self, line: Line, seen: Followed) -> None:
        """A prepared branch has ended, or was found to have ended, by whichever instance."""
        if str(line.fields["outcome"]).startswith("HEURISTIC"):
            seen.by_hand = True  # it is told for what it is; who did it is no process of ours
        if line.fields["decision"] == COMMIT and seen.whole and not seen.durable:
            self._say("forced before sent", line, f"{line.branch} is committed, and no record is durable")
        self._end(line, seen, line.fields["fate"])

    def _end(self, line: Line, seen: Followed, fate: str) -> None:
        first = seen.ends.setdefault(line.branch, fate)
        if {first, fate} == {COMMITTED, ABORTED}:
            self._say("one answer", line, f"{line.branch} ended {fate}, and ended {first}")
        if fate == COMMITTED or (fate == ABORTED and line.branch in seen.prepared):
            self._claim(line, seen, fate)

    def _on_client(self, line: Line, seen: Followed) -> None:
        outcome = line.fields.get("outcome")
        if line.event == "Told" and outcome in (COMMITTED, ABORTED):
            self._claim(line, seen, outcome)

    def _claim(self, line: Line, seen: Followed, outcome: str) -> None:
        """Somebody says how the transaction ends."""
        seen.said.setdefault(outcome, line.who)
        if len(seen.said) == 2 and not seen.changed_nothing:
            both = " and ".join(f"{end} ({who})" for end, who in sorted(seen.said.items()))
            self._say("one outcome for all", line, f"it is {both}")

    def _say(self, rule: str, line: Line, detail: str) -> None:
        self._broken.append(Broken(rule, line.gtrid or "", line.where, detail))


def judge(lines: Iterable[Line], *, at_rest: bool = False) -> Follower:
    """Follow a run.

    Args:
        lines: in the order in which they happened.
        at_rest: whether the run was left to come to rest, so that what is unfinished is wrong.
    """
    follower = Follower()
    follower.follow(lines)
    if at_rest:
        follower.at_rest()
    return follower


def counts(lines: Iterable[Line]) -> Mapping[str, int]:
    """How many lines, processes, and transactions a trace has."""
    seen: dict[str, set[Any]] = {"transactions": set(), "processes": set()}
    number = 0
    for line in lines:
        number += 1
        seen["transactions"].add(line.gtrid or None)
        seen["processes"].add((line.role, line.name, line.pid))
    return {"lines": number, **{name: len(found - {None}) for name, found in seen.items()}}
