"""Decisions and ends as rows, each with a checksum.

SQLite notices a torn or mangled page only when its structure breaks; a bit that flips inside a value reads back as
another value, and here one word tells commit from abort. So each decision and each end carries a CRC-32 over all of its
content, made when it is written and compared whenever it is read.

The branches stand together in one column: they are written once and only ever read together, and a row each would
cost more than everything else in a decision.
"""

from __future__ import annotations

import json
import zlib
from json.encoder import encode_basestring_ascii as quoted

from coordinator.log.records import (
    DecisionRecord,
    EndRecord,
    LoggedBranch,
    LoggedTransaction,
    ParticipantRecord,
    ResolutionRecord,
)
from coordinator.protocol.states import Decision, Outcome

DecisionRow = tuple[str, str, int, int, str, str, int]
"""gtrid, decision, decided_unix_ms, begun_unix_ms, client, branches, crc."""

EndRow = tuple[str, int, str, int, str]
"""outcome, ended_unix_ms, evidence, end_crc, and last the gtrid that it is about."""

ParticipantRow = tuple[str, str, str, str, str, int]
"""resource, instance, address, kind, operations, registered_unix_ms."""

ResolutionRow = tuple[str, str, int, str, str, str, str, int]
"""gtrid, action, heuristic, operator, reason, state_before, state_after, unix_ms."""

StoredRow = tuple[str, str, int, int, str, str, int, str | None, int | None, str | None, int | None]
"""A decision row, then outcome, ended_unix_ms, evidence, end_crc: all None while it has not ended."""


_SPELLED: dict[Decision | Outcome, str] = {one: one.value for kind in (Decision, Outcome) for one in kind}


class DamagedRow(Exception):
    """A row is not what was written.

    Args:
        gtrid: whose row it is.
        problem: what is wrong with it.
    """

    def __init__(self, gtrid: str, problem: str) -> None:
        super().__init__(f"the record of {gtrid} {problem}")
        self.gtrid = gtrid


def decision_row(record: DecisionRecord) -> DecisionRow:
    """Spell a decision as the values of its row.

    Raises:
        UnicodeEncodeError: a text in it is not proper Unicode (a lone surrogate).
    """
    # What json.dumps would write, in a fifth of its time.
    texts = [quoted(text) for branch in record.branches for text in (branch.bqual, branch.proof)]
    branches = f"[{', '.join(texts)}]"
    decision = _SPELLED[record.decision]
    decided, begun, client = record.decided_unix_ms, record.begun_unix_ms, record.client
    crc = _decision_crc(record.gtrid, decision, decided, begun, client, branches)
    return record.gtrid, decision, decided, begun, client, branches, crc


def end_row(record: EndRecord) -> EndRow:
    """Spell an end as the values that complete its decision's row.

    Raises:
        UnicodeEncodeError: a text in it is not proper Unicode (a lone surrogate).
    """
    outcome = _SPELLED[record.outcome]
    crc = _end_crc(record.gtrid, outcome, record.ended_unix_ms, record.evidence)
    return outcome, record.ended_unix_ms, record.evidence, crc, record.gtrid


def tombstone_row(gtrid: str, forgotten: str, ended_unix_ms: int) -> EndRow:
    """Spell what is left when an operator had an ended transaction forgotten."""
    return forgotten, ended_unix_ms, "", _end_crc(gtrid, forgotten, ended_unix_ms, ""), gtrid


def read_transaction(row: StoredRow) -> LoggedTransaction:
    """Read a row back.

    Raises:
        DamagedRow: its checksum contradicts it, or its content makes no sense.
    """
    gtrid, outcome, ended, evidence, end_crc = row[0], row[7], row[8], row[9], row[10]
    decision = read_decision(row)
    if ended is None:
        return LoggedTransaction(decision, None)
    if end_crc != _end_crc(gtrid, outcome, ended, evidence):
        raise DamagedRow(gtrid, "has an end that fails its checksum")
    return LoggedTransaction(decision, EndRecord(gtrid, Outcome(outcome), ended, evidence or ""))


def read_decision(row: StoredRow) -> DecisionRecord:
    """Read the decision in a row back, whatever became of it later.

    Raises:
        DamagedRow: its checksum contradicts it, or its content makes no sense.
    """
    gtrid, decision, decided, begun, client, branches, crc = row[:7]
    if crc != _decision_crc(gtrid, decision, decided, begun, client, branches):
        raise DamagedRow(gtrid, "fails its checksum")
    texts = iter(json.loads(branches))
    logged = tuple(LoggedBranch(bqual, proof) for bqual, proof in zip(texts, texts, strict=True))
    return DecisionRecord(gtrid, Decision(decision), logged, decided, begun, client)


def participant_row(record: ParticipantRecord) -> ParticipantRow:
    """Spell a participant as the values of its row.

    Raises:
        UnicodeEncodeError: a text in it is not proper Unicode (a lone surrogate).
    """
    named = (record.resource, record.instance, record.address, record.kind)
    _check_text(named)
    return *named, json.dumps(record.operations), record.registered_unix_ms


def read_participant(row: ParticipantRow) -> ParticipantRecord:
    """Read a participant back."""
    return ParticipantRecord(*row[:4], tuple(json.loads(row[4])), row[5])


def resolution_row(record: ResolutionRecord) -> ResolutionRow:
    """Spell an operator's intervention as the values of its row.

    Raises:
        UnicodeEncodeError: a text in it is not proper Unicode (a lone surrogate).
    """
    who = (record.operator, record.reason, record.state_before, record.state_after)
    _check_text((record.gtrid, record.action, *who))
    return record.gtrid, record.action, int(record.heuristic), *who, record.unix_ms


def read_resolution(row: ResolutionRow) -> ResolutionRecord:
    """Read an operator's intervention back."""
    return ResolutionRecord(row[0], row[1], bool(row[2]), *row[3:])


def _check_text(texts: tuple[str, ...]) -> None:
    "".join(texts).encode()


# The values come back from SQLite as whatever the damage made of them, so these take anything.


def _decision_crc(gtrid: object, decision: object, decided: object, begun: object, client: object, rest: object) -> int:
    return zlib.crc32(f"{gtrid}\0{decision}\0{decided}\0{begun}\0{client}\0{rest}".encode())


def _end_crc(gtrid: object, outcome: object, ended: object, evidence: object) -> int:
    return zlib.crc32(f"{gtrid}\0{outcome}\0{ended}\0{evidence}".encode())
