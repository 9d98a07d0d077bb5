"""The decision log: hostile texts in every record through every store, rows of anything, and damaged files."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.log.chain import DECISION, sealed
from coordinator.log.records import DecisionRecord, LoggedBranch, ParticipantRecord, ResolutionRecord
from coordinator.log.rows import DamagedRow, decision_row, read_decision
from coordinator.protocol.states import Decision
from tests.conformance.decision_logs import MemoryRig, Rig, SqliteRig, answer_of, commit, gtrid
from tests.fuzz.log_checks import Damage, check_file, check_row, offered, whole_log
from tests.fuzz.loudness import quiet
from tests.fuzz.profile import bounded
from tests.fuzz.texts import LONG, any_text, wire_text

TIMES = st.integers(0, 2**63 - 1)
DECISIONS = st.builds(
    DecisionRecord,
    gtrid=any_text,
    decision=st.sampled_from(Decision),
    branches=st.lists(st.builds(LoggedBranch, any_text, any_text), max_size=3).map(tuple),
    decided_unix_ms=TIMES,
    begun_unix_ms=TIMES,
    client=any_text,
)
PARTICIPANTS = st.builds(
    ParticipantRecord, any_text, any_text, any_text, any_text, st.lists(any_text, max_size=3).map(tuple), TIMES
)
RESOLUTIONS = st.builds(
    ResolutionRecord, any_text, any_text, st.booleans(), any_text, any_text, any_text, any_text, TIMES
)
STORES = pytest.mark.parametrize("make_rig", [MemoryRig, SqliteRig])


def writable(*texts: str) -> bool:
    return all(text.encode("utf-8", "ignore").decode() == text for text in texts)


Drawn = TypeVar("Drawn")


def drawn(strategy: st.SearchStrategy[Drawn], count: int) -> list[Drawn]:
    """So many examples for one test, the same each time."""
    found: list[Drawn] = []

    @bounded(count)
    @given(strategy)
    def draw(example: Drawn) -> None:
        found.append(example)

    draw()
    return found


@STORES
async def test_what_is_written_with_hostile_texts_reads_back_as_it_was(
    make_rig: Callable[[Path], Rig], tmp_path: Path
) -> None:
    """One store for all examples: a text that can't be written leaves it as it was."""
    rig = make_rig(tmp_path)
    written: dict[str, DecisionRecord] = {}
    with quiet():
        await rig.store.open()
        for number, one in enumerate(drawn(DECISIONS, 60)):
            record = replace(one, gtrid=f"{number}{one.gtrid}")
            if await offered(rig.store, record):
                written[record.gtrid] = record
        await rig.reopen()
        for name, record in written.items():
            told = rig.store.lookup(name)
            assert told is not None
            assert told.decision == record
        await rig.store.close()
    assert written


@STORES
async def test_participants_and_interventions_read_back_as_they_were(
    make_rig: Callable[[Path], Rig], tmp_path: Path
) -> None:
    rig = make_rig(tmp_path)
    with quiet():
        await rig.store.open()
        for number, one in enumerate(drawn(PARTICIPANTS, 30)):
            record = replace(one, resource=f"r{number}")
            if await taken(partial(rig.store.register, record)):
                assert record in rig.store.participants()
        for number, action in enumerate(drawn(RESOLUTIONS, 30)):
            done = replace(action, gtrid=f"g{number}")
            if await taken(partial(rig.store.record_resolution, done)):
                assert [*rig.store.resolutions(done.gtrid)] == [done]
        await rig.store.close()


async def taken(submit: Any) -> bool:
    """Whether the record could be written at all."""
    try:
        return await answer_of(submit) is None
    except UnicodeEncodeError:
        return False


@STORES
@pytest.mark.parametrize("text", LONG, ids=["10 MiB", "quotes", "dots", "é"])
async def test_a_text_of_megabytes_reads_back_as_it_was(
    make_rig: Callable[[Path], Rig], tmp_path: Path, text: str
) -> None:
    rig = make_rig(tmp_path)
    await rig.store.open()
    record = replace(commit(1), client=text, branches=(LoggedBranch(text, text),))
    assert await offered(rig.store, record)
    told = rig.store.lookup(gtrid(1))
    assert told is not None
    assert told.decision == record
    await rig.store.close()


VALUES = st.one_of(
    wire_text,
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=40),
    st.sampled_from(["commit", "abort", "forgotten", "[]", "{}", '["a"]']),
)
"""What SQLite can give back: a text that is no Unicode it refuses itself."""


@bounded(150)
@given(kind=st.integers(0, 3), data=st.data())
def test_a_row_of_anything_is_refused_as_damaged(kind: int, data: st.DataObject) -> None:
    columns = (9, 15, 9, 11)[kind]
    check_row(kind, data.draw(st.tuples(*[VALUES] * columns)))


@bounded(100)
@given(record=DECISIONS, column=st.integers(0, 5), value=VALUES)
def test_a_row_of_which_one_value_was_changed_is_refused(record: DecisionRecord, column: int, value: object) -> None:
    texts = [text for branch in record.branches for text in (branch.bqual, branch.proof)]
    if not writable(record.gtrid, record.client, *texts):
        return
    values, content, _ = decision_row(record)
    seq, prev = 7, b"\7" * 32
    crc, _ = sealed(DECISION, seq, prev, content)
    ended: Any = [None] * 6
    assert read_decision((seq, prev, crc, *values, *ended)) == record
    changed: Any = (*values[:column], value, *values[column + 1 :])
    if str(changed[column]) != str(values[column]):
        with pytest.raises(DamagedRow):
            read_decision((seq, prev, crc, *changed, *ended))


DAMAGES = st.builds(Damage, st.integers(0, 2**20), st.binary(min_size=1, max_size=64), st.booleans())


@bounded(40)
@given(DAMAGES)
def test_a_damaged_file_is_refused_or_tells_nothing_that_was_not_written(damage: Damage) -> None:
    check_file(damage.of(whole_log()))


def test_an_undamaged_file_is_opened() -> None:
    assert check_file(whole_log())
