"""Every scenario gives the trace that its file holds.

After a change of the protocol: ``pytest tests/transcripts --update-transcripts``, and read the difference.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transcripts.transcript import played

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_scenario_gives_its_trace(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    trace = played(text)
    if request.config.getoption("--update-transcripts", default=False):
        path.write_text(trace)
    assert path.read_text() == trace


def test_there_are_scenarios_and_each_says_what_it_shows() -> None:
    assert len(SCENARIOS) >= 14
    assert [path.name for path in SCENARIOS if not path.read_text().startswith("# ")] == []


def test_a_trace_that_differs_is_noticed() -> None:
    text = played("# One.\n\nbegin\n\nenlist accounts.a\n\ncommit\n")
    assert "send     CommitOnePhase accounts.a" in text
    assert played(text) == text
    assert played(text.replace("CommitOnePhase", "Prepare")) == text
