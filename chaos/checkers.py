"""The judges: pure functions over the evidence, each of which knows one rule and says what breaks it.

A checker returns the violations that it found, in words; none means that the rule holds. None of them believes a single
witness: what a client was told, what stands in the databases and what the coordinator remembers are compared.

``same_commit_order`` is the test for conflict serializability, restricted to what can be seen of it: two-phase locking
in each database with a common end for all branches makes one order for all (Bernstein, Hadzilacos and Goodman, 1987,
chapter 7). Journal lines of one account are numbered while its row is locked, so their order is the order of commits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from chaos.bank_stack import SERVICES, JournalLine
from chaos.evidence import Evidence
from chaos.history import Call, Status

IN_DOUBT_S_MAX = 30.0
"""After the last fault is healed, no branch may stay in doubt for longer."""

COMMITTED, ABORTED = "COMMITTED", "ABORTED"

Checker = Callable[[Evidence], list[str]]


def money_conserved(evidence: Evidence) -> list[str]:
    """The sum over both databases is what it was, and each balance is what its journal says."""
    found = []
    before, after = sum(evidence.money_before.values()), sum(evidence.money_after.values())
    if before != after:
        found.append(f"{before} cents before, {after} after: {after - before:+d}")
    for database, cents in evidence.money_after.items():
        changed = cents - evidence.money_before[database]
        written = sum(line.cents for line in evidence.journal if line.database == database)
        if changed != written:
            found.append(f"{database} changed by {changed:+d} cents, its journal says {written:+d}")
    return found


def one_outcome_everywhere(evidence: Evidence) -> list[str]:
    """Client, log and both journals tell the same of every transaction: done on both sides, or on none."""
    lines: dict[str, list[JournalLine]] = defaultdict(list)
    for line in evidence.journal:
        lines[line.transfer].append(line)
    found = [words for call in evidence.calls for words in _against(call, lines[call.transfer], evidence)]
    known = {call.transfer for call in evidence.calls}
    return found + [f"{transfer} is in a journal, and no client made it" for transfer in sorted(lines.keys() - known)]


def _against(call: Call, lines: Sequence[JournalLine], evidence: Evidence) -> Iterator[str]:
    """What speaks against this call's having one outcome."""
    name = f"{call.transfer} ({call.gtrid or 'no transaction'})"
    applied = sorted(line.database for line in lines)
    if applied and applied != sorted(SERVICES):
        yield f"{name}: applied in {' and '.join(applied)} only"
    if sum(line.cents for line in lines):
        yield f"{name}: its two sides do not add up: {[line.cents for line in lines]}"
    if call.known is Status.OK and not applied:
        yield f"{name}: the client knows it committed, and no journal has it"
    if call.known is Status.FAIL and applied:
        yield f"{name}: the client knows it failed, and the journal of {' and '.join(applied)} has it"
    logged = evidence.logged.get(call.gtrid)
    if logged == COMMITTED and not applied:
        yield f"{name}: the log says committed, and no journal has it"
    if logged not in (None, COMMITTED) and applied:
        yield f"{name}: the log says {logged}, and the journal of {' and '.join(applied)} has it"
    if logged is None and call.known is Status.OK:
        yield f"{name}: the client knows it committed, and the coordinator knows nothing of it"


def never_both(evidence: Evidence) -> list[str]:
    """No transaction was told to be committed by one witness, or at one time, and aborted by another."""
    told: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for call in evidence.calls:
        for status, witness in ((call.status, "the client's answer"), (call.resolved, "the client's question later")):
            if status in (Status.OK, Status.FAIL) and call.gtrid:
                told[call.gtrid][COMMITTED if status is Status.OK else ABORTED].add(witness)
    for gtrid, outcome in evidence.logged.items():
        if outcome in (COMMITTED, ABORTED):
            told[gtrid][outcome].add("the log")
    return [
        f"{gtrid}: committed, says {' and '.join(sorted(outcomes[COMMITTED]))}; "
        f"aborted, says {' and '.join(sorted(outcomes[ABORTED]))}"
        for gtrid, outcomes in told.items()
        if outcomes.keys() == {COMMITTED, ABORTED}
    ]


def every_outcome_known(evidence: Evidence) -> list[str]:
    """A client whose answer was lost learned the outcome by asking, unless it had no transaction to ask for."""
    return [
        f"{call.transfer} ({call.gtrid}): still unknown: {call.resolution or call.error or 'never ended'}"
        for call in evidence.calls
        if call.known is Status.INFO and call.gtrid
    ]


def same_commit_order(evidence: Evidence) -> list[str]:
    """Transfers that touch the same rows committed in one order in every database."""
    after: dict[str, set[str]] = defaultdict(set)
    by_account: dict[tuple[str, int], list[JournalLine]] = defaultdict(list)
    for line in evidence.journal:
        by_account[line.database, line.account].append(line)
    for lines in by_account.values():
        for earlier, later in pairwise(sorted(lines, key=lambda line: line.line)):
            after[earlier.transfer].add(later.transfer)
    cycle = _cycle(after)
    return [f"no one order fits all databases: {' before '.join(cycle)}"] if cycle else []


def _cycle(after: dict[str, set[str]]) -> list[str]:
    """A cycle in a graph, its first member repeated at the end; empty when there is none. Without recursion: a run has
    thousands of transfers in one chain."""
    done: set[str] = set()
    for root in list(after):
        path: list[str] = []
        on_path: set[str] = set()
        stack = [(root, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                path.pop()
                on_path.discard(node)
                done.add(node)
            elif node in on_path:
                return [*path[path.index(node) :], node]
            elif node not in done:
                path.append(node)
                on_path.add(node)
                stack.append((node, True))
                stack.extend((one, False) for one in sorted(after.get(node, ())))
    return []


def nothing_left_in_doubt(evidence: Evidence) -> list[str]:
    """Once everything is healed, every branch ends within 30 s."""
    limit_s = evidence.healed_s + IN_DOUBT_S_MAX
    late = [one for one in evidence.in_doubt if (evidence.ended_s if one.end_s is None else one.end_s) > limit_s]
    found = [f"{one.database}, {one.gtrid}: in doubt for more than {IN_DOUBT_S_MAX:g} s after healing" for one in late]
    return found + [f"{name}: still prepared at the end" for name in evidence.left_prepared]


def audit_says_atomic(evidence: Evidence) -> list[str]:
    """The coordinator's own comparison of its log with every participant finds nothing."""
    if evidence.audit_verdict == "atomic":
        return []
    return [f"the audit says {evidence.audit_verdict}", *evidence.audit_differences]


def traces_hold(evidence: Evidence) -> list[str]:
    """The run, followed from the processes' traces alone, breaks no rule of docs/trace.md."""
    return list(evidence.trace_broken)


CHECKERS: dict[str, Checker] = {
    "money is conserved": money_conserved,
    "one outcome everywhere": one_outcome_everywhere,
    "never both committed and aborted": never_both,
    "every lost answer is found": every_outcome_known,
    "same commit order everywhere": same_commit_order,
    "nothing left in doubt": nothing_left_in_doubt,
    "audit says atomic": audit_says_atomic,
    "the traces hold": traces_hold,
}


def check(evidence: Evidence) -> dict[str, list[str]]:
    """Ask every checker. Returns the violations that each found, by the rule's name."""
    return {rule: checker(evidence) for rule, checker in CHECKERS.items()}
