"""The decision log against texts that break things, and against files that were damaged.

What holds: a record reads back as it was written, or is refused as damaged. Never as another.
"""

import asyncio
import sqlite3
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from coordinator.log.records import DecisionRecord, LoggedTransaction
from coordinator.log.rows import DamagedRow, read_decision, read_participant, read_resolution, read_transaction
from coordinator.log.store import LogBroken, LogStore
from coordinator.log.verifying import verify_log
from coordinator.protocol.states import Decision
from handfast.catalog import HandfastFault
from tests.conformance.decision_logs import answer_of, commit, ended, gtrid
from tests.fuzz.loudness import quiet
from tests.unit.log.full_log import fill_with_everything
from tests.unit.log.sqlite_logs import sqlite_log

WRITTEN = range(1, 31)
"""The transactions of ``full_log``; all of them are commits."""


async def offered(store: LogStore, record: DecisionRecord) -> bool:
    """Offer a decision; tell whether it could be written at all.

    Raises:
        AssertionError: another one stands.
    """
    try:
        stood = await answer_of(partial(store.decide, record))
    except UnicodeEncodeError:
        return False
    assert stood is record.decision
    return True


# -- rows ----------------------------------------------------------------------------------------------------------


def check_row(kind: int, row: tuple[Any, ...]) -> None:
    """A row with anything in it, as damage may have made it: it is read, or refused as damaged."""
    read: Any = (read_decision, read_transaction, read_participant, read_resolution)[kind % 4]
    with suppress(DamagedRow):
        read(row)


# -- files ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """What was done to a file.

    Args:
        place: where, in bytes; beyond the end it counts from the beginning again.
        put: the bytes that were put there.
        cut: whether the file ends there.
    """

    place: int
    put: bytes
    cut: bool = False

    def of(self, data: bytes) -> bytes:
        """The file's content afterwards."""
        place = self.place % len(data)
        return data[:place] if self.cut else data[:place] + self.put + data[place + len(self.put) :]


@cache
def whole_log() -> bytes:
    """A closed log with everything in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "handfast.db"
        asyncio.run(fill_with_everything(path))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()


def check_file(data: bytes) -> bool:
    """Open a log of these bytes, and look every transaction up.

    Returns:
        Whether it could be opened.

    Raises:
        AssertionError: it told something that was never written.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "handfast.db"
        path.write_bytes(data)
        _check_verification(path)
        return asyncio.run(_opens(path))


def _check_verification(path: Path) -> None:
    try:
        found = verify_log(path)
    except HandfastFault as fault:
        _check_fault(fault)
        return
    assert all(mend for _, mend in found.findings)


def _check_fault(fault: HandfastFault) -> None:
    """A refusal of a log says so."""
    assert fault.code.startswith("LOG_"), fault


async def _opens(path: Path) -> bool:
    log = sqlite_log(path, on_broken=_ignore)
    try:
        await log.open()
    except HandfastFault as fault:
        _check_fault(fault)
        return False
    try:
        for number in WRITTEN:
            _check_told(number, _looked_up(log, number))
    finally:
        await log.close()
    return True


def _ignore(broken: LogBroken) -> None:
    """It says so to whoever asks, too."""


def _looked_up(log: LogStore, number: int) -> LoggedTransaction | None:
    try:
        return log.lookup(gtrid(number))
    except HandfastFault as fault:
        _check_fault(fault)
    except LogBroken:
        pass
    return None


def _check_told(number: int, told: LoggedTransaction | None) -> None:
    """What was told of a transaction is what was written of it, or nothing."""
    if told is None:
        return
    assert told.decision == commit(number)
    assert told.decision.decision is Decision.COMMIT
    assert told.end in (None, ended(number))


def check(data: bytes) -> None:
    """Bytes from a fuzzer: two for the place, one for what is done, the others are put there."""
    if len(data) < 4:
        return
    place = int.from_bytes(data[:3], "big")
    check_file(Damage(place, data[4:], cut=data[3] % 8 == 0).of(whole_log()))
