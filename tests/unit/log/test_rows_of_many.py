"""Many records are spelled as each of them would be by itself: a start must not be able to tell them apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.log.records import CommitRows, EndRows
from coordinator.log.rows import commit_rows, decision_row, end_row, end_rows
from coordinator.protocol.states import Outcome

texts = st.text(st.characters(codec="utf-8"), max_size=12)
times = st.integers(0, 2**53)


@given(st.data(), st.integers(2, 4), st.integers(1, 6), times, times, texts)
def test_commit_records(data: st.DataObject, width: int, count: int, decided: int, begun: int, client: str) -> None:
    names = st.lists(texts, min_size=count, max_size=count)
    bquals = tuple(data.draw(st.lists(texts, min_size=width, max_size=width)))
    rows = CommitRows(data.draw(names), bquals, [data.draw(names) for _ in bquals], decided, begun, client)
    assert commit_rows(rows) == [decision_row(record) for record in rows.each()]


@given(st.lists(texts), st.sampled_from(Outcome), times)
def test_end_records(gtrids: list[str], outcome: Outcome, ended: int) -> None:
    rows = EndRows(gtrids, outcome, ended)
    assert end_rows(rows) == [end_row(record) for record in rows.each()]
