"""A log as JSON Lines: for a copy that outlives retention, for a person with ``jq``, for an outside checker.

Records come in the order of the chain, each with its position and hash, so that an export shows what stood where. Texts
that may hold secrets are masked as everywhere, so that a hash can't always be computed again from the export.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from coordinator.log.chained import DROPPED, Chained, chained
from coordinator.log.checking import read_books
from coordinator.log.reading import read_log
from handfast.masking import masked


def export_log(path: Path, write: Callable[[dict[str, Any]], None]) -> int:
    """Write a log as documents.

    Args:
        path: the log's file; it may be in use.
        write: takes them one by one. A closed log that is opened meanwhile is begun anew, with its document ``log``.

    Returns:
        How many records are not what was written.

    Raises:
        HandfastFault: LOG_PATH_UNUSABLE, LOG_CORRUPT, LOG_SCHEMA_NEWER or LOG_WITHOUT_CHAIN.
    """

    def read(connection: sqlite3.Connection) -> int:
        wrong = 0
        for document in _documents(connection):
            wrong += bool(document["problem"])
            write(document)
        return wrong

    return read_log(path, read)


def _documents(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    head, life, findings = read_books(connection)
    yield {
        "record": "log",
        "coordinator_id": None if life is None else life.coordinator_id,
        "epoch": None if life is None else life.epoch,
        "horizon_unix_ms": None if life is None else life.horizon_unix_ms,
        "head_seq": None if head is None else head.seq,
        "head_hash": None if head is None else head.hash.hex(),
        "adopted_seq": None if head is None else head.adopted_seq,
        "problem": "; ".join(found.problem for found in findings) or None,
    }
    for record in chained(connection):
        yield _document(record)


def _document(record: Chained) -> dict[str, Any]:
    if record.kind == DROPPED:
        place: dict[str, Any] = {"first_seq": record.first_seq, "last_seq": record.last_seq}
    else:
        place = {"seq": record.first_seq}
    hashes = {"prev": record.prev.hex(), "hash": record.hash.hex(), "problem": record.problem or None}
    fields = {name: _value(name, value) for name, value in record.fields.items()}
    return {"record": record.kind, **place, **hashes, **fields}


def _value(name: str, value: Any) -> Any:
    """A field as JSON; one that damage made senseless as the text that stands there."""
    if isinstance(value, bytes):
        return value.hex()
    if name == "heuristic":
        return bool(value)
    if name in ("branches", "operations"):
        try:
            listed = [masked(str(text)) for text in json.loads(value)]
        except (TypeError, ValueError):
            return masked(str(value))
        if name == "operations":
            return listed
        return [{"bqual": bqual, "proof": proof} for bqual, proof in zip(listed[::2], listed[1::2], strict=False)]
    return masked(value) if isinstance(value, str) else value
