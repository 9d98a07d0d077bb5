"""Scenarios as text: a script of what happens, and the full trace of what the protocol makes of it.

After etcd raft's ``testdata``. A scenario is one file of blocks; each begins with commands, one a line, and after
``----`` follows what came of them:

    vote ledger.b yes
    ----
    event    VoteReceived ledger.b yes at 0 s, proof "xid of ledger.b"
    branch   ledger.b: preparing → in doubt
    force    CommitRecord accounts.a, ledger.b
    hold     Commit accounts.a

The commands: ``begin [deadline SECONDS]``, ``at SECONDS``, ``enlist BRANCH``, ``commit``, ``rollback WHY``,
``vote BRANCH yes|no|read-only [WHY]``, ``one-phase BRANCH committed|aborted|hazard|unsupported [WHY]``, ``durable``,
``stands abort``, ``refuse WHY``, ``ack BRANCH OUTCOME [EVIDENCE]``, ``lose BRANCH``, ``retry BRANCH``, ``deadline``,
``resolve commit|rollback OPERATOR``, ``crash [forced]``, ``recover``, ``inquire``, ``forget``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from enum import Enum

from coordinator.protocol import events as e
from coordinator.protocol.effects import CommitRecord, Effects, Send, SendCommit, SendPrepare
from coordinator.protocol.states import Cause, Decision, Outcome, Vote
from coordinator.protocol.transaction import GlobalTransaction

RULE = "----"

OUTCOMES = {
    "committed": Outcome.COMMITTED,
    "aborted": Outcome.ABORTED,
    "heuristic-commit": Outcome.HEURISTIC_COMMIT,
    "heuristic-rollback": Outcome.HEURISTIC_ROLLBACK,
    "hazard": Outcome.HEURISTIC_HAZARD,
}
DECISIONS = {"commit": Decision.COMMIT, "rollback": Decision.ABORT, "abort": Decision.ABORT}


class Scenario:
    """One coordinator, its log, and a transaction that a script drives."""

    def __init__(self) -> None:
        self._machine: GlobalTransaction | None = None
        self._now_s = 0.0
        self._offered: CommitRecord | None = None
        self._held: tuple[SendCommit, ...] = ()
        self._record: CommitRecord | None = None
        self._ended = False
        self._under_way: dict[str, Send] = {}
        self._trace: list[str] = []

    def run(self, command: str) -> list[str]:
        """Do what one line says; return the trace."""
        self._trace = []
        word, *rest = command.split(" ", 2)
        do: Callable[..., None] = getattr(self, f"_do_{word.replace('-', '_')}")
        do(*rest)
        return self._trace

    # -- the client, the clock, the operator -------------------------------------------------------------------------

    def _do_begin(self, *deadline: str) -> None:
        self._machine = GlobalTransaction("t", float(deadline[1]) if deadline else 10.0)
        self._say("state", "active")

    def _do_at(self, now_s: str) -> None:
        self._now_s = float(now_s)
        self._say("clock", f"{self._now_s:g} s")

    def _do_enlist(self, bqual: str) -> None:
        self._feed(e.Enlisted(bqual))

    def _do_commit(self) -> None:
        self._feed(e.CommitRequested(self._now_s))

    def _do_rollback(self, *why: str) -> None:
        self._feed(e.RollbackRequested(Cause.CLIENT, " ".join(why)))

    def _do_deadline(self) -> None:
        self._feed(e.DeadlinePassed())

    def _do_resolve(self, wish: str, operator: str) -> None:
        self._feed(e.ResolvedAgainstDecision(DECISIONS[wish], operator))

    def _do_forget(self) -> None:
        self._feed(e.Forgotten())

    # -- participants ------------------------------------------------------------------------------------------------

    def _do_vote(self, bqual: str, said: str) -> None:
        said, _, why = said.partition(" ")
        vote = Vote(said.replace("-", " "))
        self._under_way.pop(bqual, None)
        proof = f"xid of {bqual}" if vote is Vote.YES else ""
        self._feed(e.VoteReceived(bqual, vote, self._now_s, proof, why))

    def _do_one_phase(self, bqual: str, said: str) -> None:
        said, _, why = said.partition(" ")
        self._under_way.pop(bqual, None)
        if said == "unsupported":
            self._feed(e.OnePhaseUnsupported(bqual))
        else:
            self._feed(e.OnePhaseAnswered(bqual, OUTCOMES[said], why))

    def _do_ack(self, bqual: str, said: str) -> None:
        said, _, evidence = said.partition(" ")
        self._under_way.pop(bqual, None)
        self._feed(e.BranchEnded(bqual, OUTCOMES[said], evidence))

    def _do_lose(self, bqual: str) -> None:
        message = self._under_way.pop(bqual)
        if isinstance(message, SendPrepare):
            self._feed(e.VoteLost(bqual, "no answer"))
        else:
            self._feed(e.DeliveryFailed(bqual, "no answer"))

    def _do_retry(self, bqual: str) -> None:
        self._feed(e.RetryDue(bqual))

    # -- the log -----------------------------------------------------------------------------------------------------

    def _do_durable(self) -> None:
        self._record, self._offered = self._offered, None
        self._say("log", "commit stands")
        held, self._held = self._held, ()
        self._feed(e.DecisionStood(Decision.COMMIT))
        self._send(held)

    def _do_stands(self, decision: str) -> None:
        self._offered, self._held = None, ()
        self._say("log", f"{decision} stood already")
        self._feed(e.DecisionStood(DECISIONS[decision]))

    def _do_refuse(self, *why: str) -> None:
        self._offered, self._held = None, ()
        self._feed(e.DecisionRefused(" ".join(why)))

    # -- crash and recovery ------------------------------------------------------------------------------------------

    def _do_crash(self, *forced: str) -> None:
        if forced:
            self._record = self._offered
        lost = [*self._under_way, *(message.bqual for message in self._held)]
        self._machine, self._offered, self._held, self._under_way = None, None, (), {}
        self._say("crash", "nobody hears any more from " + (", ".join(lost) or "anybody"))
        self._say("log", "commit stands" if self._record else "no record")

    def _do_recover(self) -> None:
        if self._record is None or self._ended:
            self._say("recover", "nothing to take up")
            return
        self._machine, effects = GlobalTransaction.recovered("t", self._record.branches)
        self._say("state", self._machine.state.value)
        self._obey(effects)

    def _do_inquire(self) -> None:
        if self._machine is not None and self._machine.decision is not None:
            self._say("answer", self._machine.decision.value)
        elif self._machine is not None:
            self._say("answer", "undecided")
        else:
            self._say("answer", "commit" if self._record else "abort (presumed)")

    # -- one step ----------------------------------------------------------------------------------------------------

    def _feed(self, event: e.Event) -> None:
        machine = self._machine
        assert machine is not None, "there is no transaction: begin, or recover"
        before, branches = self._whole(machine), self._branches(machine)
        effects = machine.step(event)
        self._say("event", _told(event))
        for bqual, state in self._branches(machine).items():
            if state != branches.get(bqual):
                self._say("branch", f"{bqual}: {branches.get(bqual, 'new')} → {state}")
        for (name, was), (_, now) in zip(before, self._whole(machine), strict=True):
            if was != now:
                self._say(name, f"{was} → {now}" if name == "state" else now)
        self._obey(effects)

    def _obey(self, effects: Effects) -> None:
        self._send(effects.send)
        if effects.force is not None:
            self._offered, self._held = effects.force, effects.send_after_force
            self._say("force", "CommitRecord " + ", ".join(bqual for bqual, _ in effects.force.branches))
        for message in effects.send_after_force:
            self._say("hold", _named(message))
        for retry in effects.retries:
            self._say("retry", f"{retry.bqual} later, after attempt {retry.attempts}")
        if effects.end is not None:
            self._ended = True
            self._say("end", f"EndRecord {effects.end.outcome.value}" + _suffix(effects.end.evidence))

    def _send(self, messages: tuple[Send, ...]) -> None:
        for message in messages:
            self._under_way[message.bqual] = message
            self._say("send", _named(message))

    @staticmethod
    def _whole(machine: GlobalTransaction) -> list[tuple[str, str]]:
        return [
            ("state", machine.state.value),
            ("decision", _shown(machine.decision)),
            ("cause", _shown(machine.cause)),
            ("reason", machine.reason),
            ("outcome", _shown(machine.outcome)),
        ]

    @staticmethod
    def _branches(machine: GlobalTransaction) -> dict[str, str]:
        return {
            branch.bqual: branch.state.value + (f" ({_shown(branch.outcome)})" if branch.outcome else "")
            for branch in machine.branches.values()
        }

    def _say(self, what: str, told: str) -> None:
        self._trace.append(f"{what:<8} {told}")


def _told(event: e.Event) -> str:
    """An event in one line: its type, its branch, what was said, and whatever else it carries."""
    words = [type(event).__name__]
    extra = []
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(value, Enum):
            words.append(str(value.value))
        elif field.name == "bqual":
            words.append(value)
        elif field.name == "now_s":
            words.append(f"at {value:g} s")
        elif value:
            extra.append(f'{field.name} "{value}"')
    return ", ".join([" ".join(words), *extra])


def _named(message: Send) -> str:
    return f"{type(message).__name__.removeprefix('Send')} {message.bqual}"


def _shown(member: Enum | None) -> str:
    return "" if member is None else str(member.value)


def _suffix(text: str) -> str:
    return f": {text}" if text else ""


def played(text: str) -> str:
    """Play a scenario; return it with the trace as it came out."""
    scenario = Scenario()
    blocks = []
    for block in text.strip().split("\n\n"):
        script = block.split(f"\n{RULE}")[0]
        commands = [line for line in script.splitlines() if line and not line.startswith("#")]
        trace = list(_played(scenario, commands))
        blocks.append("\n".join([script, RULE, *trace]) if commands else script)
    return "\n\n".join(blocks) + "\n"


def _played(scenario: Scenario, commands: list[str]) -> Iterator[str]:
    for command in commands:
        yield from scenario.run(command)
