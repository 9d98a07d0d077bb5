"""Records as rows, each with a checksum and its place in the chain.

SQLite notices a torn or mangled page only when its structure breaks; a bit that flips inside a value reads back as
another value, and here one word tells commit from abort. So each record is spelled out as bytes, its *content*, over
which its seal is made (``chain``). The checksum is compared whenever a record is read.

No two records have the same content: of the fields that are strung together with NUL between them, only one may itself
contain NUL, and it stands where the others can be told from it.

The branches stand together in one column: they are written once and only ever read together, and a row each would
cost more than everything else in a decision.
"""

from __future__ import annotations

import json
import zlib
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted

from coordinator.log.chain import DECISION, END, PARTICIPANT, RESOLUTION, is_hash, sealed
from coordinator.log.records import (
    CommitRows,
    DecisionRecord,
    EndRecord,
    EndRows,
    LoggedBranch,
    LoggedTransaction,
    ParticipantRecord,
    ResolutionRecord,
)
from coordinator.protocol.states import Decision, Outcome

DecisionValues = tuple[str, str, int, int, str, str]
"""gtrid, decision, decided_unix_ms, begun_unix_ms, client, branches."""

EndValues = tuple[str, int, str, str]
"""outcome, ended_unix_ms, evidence, and last the gtrid that it is about."""

ParticipantValues = tuple[str, str, str, str, str, int]
"""resource, instance, address, kind, operations, registered_unix_ms."""

ResolutionValues = tuple[str, str, int, str, str, str, str, int]
"""gtrid, action, heuristic, operator, reason, state_before, state_after, unix_ms."""

# A row that waits for its place in the chain: its values, its content, and the content's CRC-32.
DecisionRow = tuple[DecisionValues, bytes, int]
EndRow = tuple[EndValues, bytes, int]
ParticipantRow = tuple[ParticipantValues, bytes, int]
ResolutionRow = tuple[ResolutionValues, bytes, int]

_Decision = tuple[int, bytes, int, str, str, int, int, str, str]
_End = tuple[int | None, bytes | None, int | None, str | None, int | None, str | None]
StoredRow = tuple[*_Decision, *_End]
"""A decision's seq, prev, crc and values, then the same of its end, without the gtrid: all None until it has ended."""

STORED_COLUMNS = (
    "seq, prev, crc, gtrid, decision, decided_unix_ms, begun_unix_ms, client, branches, "
    "end_seq, end_prev, end_crc, outcome, ended_unix_ms, evidence"
)

PARTICIPANT_COLUMNS = "seq, prev, crc, resource, instance, address, kind, operations, registered_unix_ms"
RESOLUTION_COLUMNS = "seq, prev, crc, gtrid, action, heuristic, operator, reason, state_before, state_after, unix_ms"

FORGOTTEN = "forgotten"
"""Stands for the outcome of an ended transaction that an operator had forgotten. The row stays, so that its decision
still stands against a later offer and nobody takes its absence for an abort; retention removes it in time."""

_SPELLED: dict[Decision | Outcome, str] = {one: one.value for kind in (Decision, Outcome) for one in kind}


class DamagedRow(Exception):
    """A row is not what was written.

    Args:
        gtrid: whose record it is; empty when it is about no transaction.
        record: what it is and where it stands, for a person.
        problem: what is wrong with it.
    """

    def __init__(self, gtrid: str, record: str, problem: str) -> None:
        super().__init__(f"{record} {problem}")
        self.gtrid = gtrid
        self.record = record
        self.problem = problem


CHECKSUM = "fails its checksum"

_quoted_bqual = lru_cache(4096)(quoted)  # there are few


def decision_row(record: DecisionRecord) -> DecisionRow:
    """Spell a decision.

    Raises:
        UnicodeEncodeError: a text in it is not proper Unicode (a lone surrogate).
    """
    # What json.dumps would write, in a fifth of its time.
    texts = [f"{_quoted_bqual(branch.bqual)}, {quoted(branch.proof)}" for branch in record.branches]
    branches = f"[{', '.join(texts)}]"
    decision = _SPELLED[record.decision]
    gtrid, decided, begun, client = record.gtrid, record.decided_unix_ms, record.begun_unix_ms, record.client
    content = decision_content(gtrid, decision, decided, begun, client, branches)
    return (gtrid, decision, decided, begun, client, branches), content, zlib.crc32(content)


def commit_rows(records: CommitRows) -> list[DecisionRow]:
    """Spell many decisions; each as ``decision_row`` would.

    Raises:
        UnicodeEncodeError: as there.
    """
    commit, decided, begun = _SPELLED[Decision.COMMIT], records.decided_unix_ms, records.begun_unix_ms
    client, crc32 = records.client, zlib.crc32
    befores = [f"{_quoted_bqual(bqual)}, " for bqual in records.bquals]
    rows = []
    for gtrid, *proofs in zip(records.gtrids, *records.proofs, strict=True):
        texts = [before + quoted(proof) for before, proof in zip(befores, proofs, strict=True)]
        branches = f"[{', '.join(texts)}]"
        content = decision_content(gtrid, commit, decided, begun, client, branches)
        rows.append(((gtrid, commit, decided, begun, client, branches), content, crc32(content)))
    return rows


def end_rows(records: EndRows) -> list[EndRow]:
    """Spell many ends; each as ``end_row`` would."""
    outcome, ended = _SPELLED[records.outcome], records.ended_unix_ms
    crc32 = zlib.crc32
    rows = []
    for gtrid in records.gtrids:
        content = end_content(gtrid, outcome, ended, "")
        rows.append(((outcome, ended, "", gtrid), content, crc32(content)))
    return rows


def end_row(record: EndRecord) -> EndRow:
    """Spell an end.

    Raises:
        UnicodeEncodeError: a text in it is not proper Unicode (a lone surrogate).
    """
    outcome = _SPELLED[record.outcome]
    content = end_content(record.gtrid, outcome, record.ended_unix_ms, record.evidence)
    return (outcome, record.ended_unix_ms, record.evidence, record.gtrid), content, zlib.crc32(content)


def tombstone_row(gtrid: str, ended_unix_ms: int) -> EndRow:
    """Spell what is left when an operator had an ended transaction forgotten."""
    content = end_content(gtrid, FORGOTTEN, ended_unix_ms, "")
    return (FORGOTTEN, ended_unix_ms, "", gtrid), content, zlib.crc32(content)


def participant_row(record: ParticipantRecord) -> ParticipantRow:
    """Spell a participant.

    Raises:
        UnicodeEncodeError: a text in it is not proper Unicode (a lone surrogate).
    """
    named = (record.resource, record.instance, record.address, record.kind)
    values = (*named, json.dumps(record.operations), record.registered_unix_ms)
    content = listed_content(values)
    return values, content, zlib.crc32(content)


def resolution_row(record: ResolutionRecord) -> ResolutionRow:
    """Spell an operator's intervention.

    Raises:
        UnicodeEncodeError: a text in it is not proper Unicode (a lone surrogate).
    """
    who = (record.operator, record.reason, record.state_before, record.state_after)
    values = (record.gtrid, record.action, int(record.heuristic), *who, record.unix_ms)
    content = listed_content(values)
    return values, content, zlib.crc32(content)


# -- contents ----------------------------------------------------------------------------------------------------------
# The values come back from SQLite as whatever the damage made of them, so these take anything.


def decision_content(
    gtrid: object, decision: object, decided: object, begun: object, client: object, branches: object
) -> bytes:
    """A decision as its seal covers it. Only the client may contain NUL: the branches are JSON in ASCII."""
    return f"{gtrid}\0{decision}\0{decided}\0{begun}\0{client}\0{branches}".encode()


def end_content(gtrid: object, outcome: object, ended: object, evidence: object) -> bytes:
    """An end as its seal covers it. Only the evidence may contain NUL."""
    return f"{gtrid}\0{outcome}\0{ended}\0{evidence}".encode()


def listed_content(values: tuple[object, ...]) -> bytes:
    """A rare record as its seal covers it."""
    return json.dumps(values, ensure_ascii=False, default=repr).encode()


# -- reading -----------------------------------------------------------------------------------------------------------


def read_transaction(row: StoredRow) -> LoggedTransaction:
    """Read a row back.

    Raises:
        DamagedRow: its checksum contradicts it, or its content makes no sense.
    """
    decision = read_decision(row)
    gtrid, ended = row[3], row[13]
    if ended is None:
        return LoggedTransaction(decision, None)
    record = named("end", row[9], gtrid)
    _check(gtrid, record, END, row[9], row[10], row[11], end_content(gtrid, row[12], ended, row[14]))
    try:
        return LoggedTransaction(decision, EndRecord(gtrid, Outcome(row[12]), ended, row[14] or ""))
    except ValueError as error:
        raise DamagedRow(gtrid, record, f"makes no sense: {error}") from error


def read_decision(row: StoredRow) -> DecisionRecord:
    """Read the decision in a row back, whatever became of it later.

    Raises:
        DamagedRow: its checksum contradicts it, or its content makes no sense.
    """
    seq, prev, crc, gtrid, decision, decided, begun, client, branches = row[:9]
    record = named("decision", seq, gtrid)
    content = decision_content(gtrid, decision, decided, begun, client, branches)
    _check(gtrid, record, DECISION, seq, prev, crc, content)
    try:
        texts = iter(json.loads(branches))
        logged = tuple(LoggedBranch(bqual, proof) for bqual, proof in zip(texts, texts, strict=True))
        return DecisionRecord(gtrid, Decision(decision), logged, decided, begun, client)
    except ValueError as error:
        raise DamagedRow(gtrid, record, f"makes no sense: {error}") from error


def read_participant(row: tuple[int, bytes, int, *ParticipantValues]) -> ParticipantRecord:
    """Read a participant back.

    Raises:
        DamagedRow: its checksum contradicts it.
    """
    seq, prev, crc, *values = row
    record = named("participant", seq, f"{row[3]}.{row[4]}")
    _check("", record, PARTICIPANT, seq, prev, crc, listed_content(tuple(values)))
    return ParticipantRecord(*row[3:7], tuple(json.loads(row[7])), row[8])


def read_resolution(row: tuple[int, bytes, int, *ResolutionValues]) -> ResolutionRecord:
    """Read an operator's intervention back.

    Raises:
        DamagedRow: its checksum contradicts it.
    """
    seq, prev, crc, *values = row
    _check(row[3], named("resolution", seq, row[3]), RESOLUTION, seq, prev, crc, listed_content(tuple(values)))
    return ResolutionRecord(row[3], row[4], bool(row[5]), *row[6:])


def named(kind: str, seq: object, about: object) -> str:
    """What a record is and where it stands, for a person."""
    return f"the {kind} of {about} at position {seq}"


def _check(gtrid: str, record: str, kind: bytes, seq: object, prev: object, crc: object, content: bytes) -> None:
    if not isinstance(seq, int) or not is_hash(prev) or sealed(kind, seq, prev, content)[0] != crc:
        raise DamagedRow(gtrid, record, CHECKSUM)
