"""What the demo found in the end: the numbers, and everything that contradicts atomicity.

Three witnesses must agree: the coordinator's audit, the two databases by plain SQL, and the applications, each of which
remembers what it was told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos.bank_stack import JournalLine, PreparedBranch
from chaos.demo.transfers import Fate, Result
from handfast.v1 import admin_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The numbers of one run.

    Args:
        transfers: how many were made.
        committed: how many happened.
        aborts: how many did not happen, by reason.
        unknown_resolved: how many clients did not know the outcome, and learned it by asking.
        money_before: what both databases held together, in cents.
        money_after: what they hold now.
        longest_block_s: the longest that a bystander waited for a row held by a branch in doubt, in seconds.
        differences: what contradicts atomicity, in words; empty when nothing does.
    """

    transfers: int
    committed: int
    aborts: Counter[str] = field(default_factory=Counter)
    unknown_resolved: int
    money_before: int
    money_after: int
    longest_block_s: float
    differences: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """``atomic`` or ``differs``."""
        return "differs" if self.differences else "atomic"

    def as_json(self) -> dict[str, object]:
        """The form of `handfast demo --json`."""
        return {
            "verdict": self.verdict,
            "transfers": self.transfers,
            "committed": self.committed,
            "aborted": self.aborts.total(),
            "unknown_resolved": self.unknown_resolved,
            "money_before": self.money_before,
            "money_after": self.money_after,
            "longest_block_s": round(self.longest_block_s, 3),
        }


def differences(
    results: Sequence[Result],
    journal: Sequence[JournalLine],
    prepared: Sequence[PreparedBranch],
    audit: admin_pb2.AuditResponse,
    money_before: int,
    money_after: int,
) -> tuple[str, ...]:
    """Everything that contradicts atomicity, in words.

    Args:
        results: what each application was told.
        journal: every line of both databases.
        prepared: the branches that are in doubt at the end.
        audit: what the coordinator found.
        money_before: what both databases held together at the start, in cents.
        money_after: what they hold now.
    """
    found = []
    if money_after != money_before:
        found.append(f"there were {money_before} cents before, and are {money_after} now")
    found += [f"{one.gid} is still in doubt in the {one.database} database" for one in prepared]
    if audit.verdict != "atomic":
        found.append(f"the audit says {audit.verdict}, with {len(audit.differences)} differences")
    found += [f"{one.gtrid} {one.bqual}: {one.log} in the log, {one.resource} there" for one in audit.differences]
    return (*found, *_against_journal(results, journal))


def _against_journal(results: Sequence[Result], journal: Sequence[JournalLine]) -> list[str]:
    """What applications were told, against what the databases hold."""
    lines: dict[str, dict[str, int]] = defaultdict(dict)
    for line in journal:
        lines[line.transfer][line.database] = line.cents
    found = []
    for result in results:
        name = result.transfer.payment.transfer
        sides = lines.pop(name, {})
        if result.fate is Fate.UNKNOWN:
            found.append(f"nobody knows what became of {name}")
        elif (result.fate is Fate.COMMITTED) != (len(sides) == 2) or (sides and sum(sides.values()) != 0):
            found.append(
                f"{name} is {result.fate.value} to its application, and the journals hold {sides or 'nothing'}"
            )
    return found + [f"the journals hold {name}, which nobody made" for name in lines]
