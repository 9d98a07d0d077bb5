"""The audit trail: append-only, readable after a restart, and not to be flooded."""

import json
import logging
import stat
from pathlib import Path

import pytest

from coordinator.rpc.trail import WINDOW_REFUSALS_MAX, WINDOW_S, Trail
from tests.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def did(trail: Trail, gtrid: str = "g-1") -> None:
    trail.did("alice", "resolve --rollback", peer="ipv4:1", gtrid=gtrid, reason="why", before="active", after="aborted")


def test_each_line_is_a_json_object_with_who_when_what_why_before_and_after(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "trail.jsonl"
    did(Trail(clock, path))
    (line,) = path.read_text().splitlines()
    entry = json.loads(line)
    assert {name: entry[name] for name in ("who", "action", "gtrid", "reason", "before", "after")} == {
        "who": "alice",
        "action": "resolve --rollback",
        "gtrid": "g-1",
        "reason": "why",
        "before": "active",
        "after": "aborted",
    }
    assert entry["unix_ms"] == clock.unix_ms()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_later_life_appends_and_shows_what_was_there(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "trail.jsonl"
    did(Trail(clock, path), "g-1")
    with path.open("a") as opened:
        opened.write('{"unix_ms": 1, "wh')  # a crash cut it off
    with path.open("a") as opened:
        opened.write("\n")
    later = Trail(clock, path)
    did(later, "g-2")
    assert [entry.gtrid for entry in later.entries(10)] == ["g-2", "g-1"]
    assert [entry.gtrid for entry in later.entries(1)] == ["g-2"]
    assert len(path.read_text().splitlines()) == 3


def test_a_line_holds_whatever_somebody_is_called(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "trail.jsonl"
    Trail(clock, path).denied('m"al\nlory\u2028', "ask", "PERMISSION_DENIED")
    (entry,) = Trail(clock, path).entries(10)
    assert entry.who == 'm"al\nlory\u2028'


def test_who_is_refused_all_the_time_writes_some_lines_and_the_rest_is_counted(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "trail.jsonl"
    trail = Trail(clock, path)
    for _ in range(1000):
        trail.denied("mallory", "commit", "PERMISSION_DENIED")
    trail.denied("somebody else", "commit", "PERMISSION_DENIED")
    assert len(path.read_text().splitlines()) == WINDOW_REFUSALS_MAX + 1
    clock.advance(WINDOW_S)
    trail.denied("mallory", "commit", "PERMISSION_DENIED")
    assert trail.entries(1)[0].left_out == 1000 - WINDOW_REFUSALS_MAX


def test_a_disk_that_takes_no_line_is_logged_and_stops_nothing(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    trail = Trail(clock, tmp_path / "absent" / "trail.jsonl")
    with caplog.at_level(logging.ERROR):
        did(trail)
    assert "lost a line" in caplog.text
    assert len(trail.entries(10)) == 1
