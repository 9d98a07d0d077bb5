"""HANDFAST_TRACE: where lines go, what they hold, and what a file that fails does to the process (nothing)."""

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

import handfast
from coordinator.protocol.events import DecisionRefused, VoteReceived
from coordinator.protocol.states import Vote
from handfast.catalog import HandfastFault
from handfast.trace import TEXT_CHARACTERS_MAX, VERSION, Owner, Trace, TraceFile, told, trace_from_environment
from participant import Participant

GTRID = "k3v9q2xw-3-0m9xk2f1c-2s"
CANARY = "c4nary"
SECRETS = (
    f"connection to postgresql://bank:{CANARY}@db:5432/accounts failed",
    f"bad dsn: host=db user=bank password='{CANARY} and more'",
    f"authorization: Bearer {CANARY}.0123456789abcdef",
)


def owner(role: str = "coordinator") -> Owner:
    return Owner(role, "k3v9q2xw", unix_us=lambda: 1_700_000_000_000_001, monotonic_s=lambda: 12.5)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_a_line_says_when_who_which_transaction_and_what(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    Trace(TraceFile(str(path)), owner()).note("Enlisted", GTRID, branch="accounts.a1", before=None, after="ACTIVE")
    assert lines(path) == [
        {
            "v": VERSION,
            "unix_us": 1_700_000_000_000_001,
            "monotonic_us": 12_500_000,
            "role": "coordinator",
            "name": "k3v9q2xw",
            "pid": os.getpid(),
            "coordinator": "k3v9q2xw",
            "epoch": 3,
            "gtrid": GTRID,
            "branch": "accounts.a1",
            "event": "Enlisted",
            "after": "ACTIVE",
        }
    ]


def test_several_processes_append_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    first, second = TraceFile(str(path)), TraceFile(str(path))
    for number in range(50):
        (first if number % 3 else second).write(json.dumps({"n": number}))
    assert [line["n"] for line in lines(path)] == list(range(50))


def test_a_line_is_with_the_operating_system_when_write_returns(tmp_path: Path) -> None:
    """So SIGKILL loses none: there is no buffer of ours that it could be in."""
    path = tmp_path / "trace"
    trace = TraceFile(str(path))
    trace.write("{}")
    assert path.read_text() == "{}\n"


def test_the_process_s_id_can_stand_in_the_name(tmp_path: Path) -> None:
    TraceFile(str(tmp_path / "trace-%p")).write("{}")
    assert [found.name for found in tmp_path.iterdir()] == [f"trace-{os.getpid()}"]


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    TraceFile(str(tmp_path / "trace"))
    assert (tmp_path / "trace").stat().st_mode & 0o077 == 0


def test_a_file_that_can_t_be_opened_is_an_error_of_the_setting(tmp_path: Path) -> None:
    with pytest.raises(HandfastFault, match="can't be written") as refused:
        TraceFile(str(tmp_path / "not there" / "trace"))
    assert (refused.value.code, "HANDFAST_TRACE" in refused.value.message) == ("SETTING_INVALID", True)


def test_a_full_disk_is_said_once_and_counted_in_the_first_line_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "trace"
    trace = TraceFile(str(path))
    trace.write('{"event":"before"}')
    with monkeypatch.context() as full:
        full.setattr(os, "write", no_space)
        for _ in range(7):
            trace.write('{"event":"lost"}')
    trace.write('{"event":"after"}')
    assert [(line["event"], line.get("lost")) for line in lines(path)] == [
        ("before", None),
        ("LinesLost", 7),
        ("after", None),
    ]
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


def test_a_line_cut_off_by_a_full_disk_does_not_spoil_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "trace", os.write
    trace = TraceFile(str(path))
    with monkeypatch.context() as nearly_full:
        nearly_full.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
        trace.write('{"event":"cut off"}')
    trace.write('{"event":"whole"}')
    cut_off, lost, whole = path.read_text().splitlines()
    assert cut_off == '{"eve'
    assert (json.loads(lost)["lost"], json.loads(whole)) == (1, {"event": "whole"})


def test_a_pipe_that_nobody_reads_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    trace = TraceFile(str(path))
    for _ in range(100):
        trace.write("x" * 4_000)  # more than any pipe holds
    os.close(reader)
    assert "loses lines" in caplog.text


def test_what_can_t_be_put_into_words_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def write(self, line: str) -> None:
            raise RuntimeError("a defect")

    with caplog.at_level(logging.ERROR):
        Trace(Broken(), owner()).note("Enlisted", GTRID)
    assert "could not be traced" in caplog.text


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_traced(tmp_path: Path, secret: str) -> None:
    path = tmp_path / "trace"
    trace = Trace(TraceFile(str(path)), owner())
    vote = VoteReceived("accounts.a1", Vote.NO, 1.0, reason=secret)
    trace.note("VoteReceived", GTRID, fields=vote, effects={"end": {"evidence": secret}}, answer=[secret])
    trace.note("DecisionRefused", GTRID, fields=DecisionRefused(secret))
    assert len(lines(path)) == 2
    assert CANARY not in path.read_text()


def test_values_that_are_no_event_s_are_told_by_their_kind_only() -> None:
    assert told(b"a payload") == "bytes"
    assert told({"a": (1, None, True)}) == {"a": [1, None, True]}
    assert told(float("inf")) is None
    assert len(str(told("x" * 10_000))) == TEXT_CHARACTERS_MAX


def test_without_the_variable_there_is_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANDFAST_TRACE", raising=False)
    assert trace_from_environment(owner()) is None


def test_the_variable_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HANDFAST_TRACE", str(tmp_path / "trace"))
    trace = trace_from_environment(owner("client"))
    assert trace is not None
    trace.note("Told", GTRID)
    assert [line["role"] for line in lines(tmp_path / "trace")] == ["client"]


async def test_a_client_whose_trace_can_t_be_written_does_not_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HANDFAST_TRACE", str(tmp_path / "not there" / "trace"))
    with pytest.raises(HandfastFault, match="HANDFAST_TRACE"):
        async with handfast.connect("127.0.0.1:1"):
            pass


def test_a_participant_whose_trace_can_t_be_written_is_not_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HANDFAST_TRACE", str(tmp_path / "not there" / "trace"))
    with pytest.raises(HandfastFault, match="HANDFAST_TRACE"):
        Participant("accounts", "dbname=none", coordinator="127.0.0.1:1", address="127.0.0.1:2")


def no_space(descriptor: int, data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
