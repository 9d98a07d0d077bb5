"""docs/states.md is what the tables say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest

from coordinator.protocol import events as e
from coordinator.protocol.states import TransactionState
from coordinator.protocol.table import TRANSITIONS
from tools import generate_state_docs

TOOL = Path(generate_state_docs.__file__)


def test_the_page_is_current() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--check"], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_table_that_changes_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = {**TRANSITIONS[TransactionState.FORGOTTEN], e.Forgotten: (TransactionState.FORGOTTEN,)}
    changed = MappingProxyType({**TRANSITIONS, TransactionState.FORGOTTEN: row})
    monkeypatch.setattr(generate_state_docs, "TRANSITIONS", changed)
    monkeypatch.setattr(sys, "argv", [str(TOOL), "--check"])
    assert generate_state_docs.main() == 1
    assert "docs/states.md is not what the tables say" in capsys.readouterr().err


def test_every_step_of_the_table_is_on_the_page() -> None:
    page = generate_state_docs.page()
    for before, event, after in generate_state_docs.coordinator_steps():
        assert f"`{event}`" in page
        if before != after:
            assert any(f"{before} --> {after}:" in line and event in line for line in page.splitlines())
