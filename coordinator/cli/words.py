"""Names, colours and times, said the same way in every report.

A colour only repeats what a word or a sign already says, so that a report reads the same without colours.
"""

from __future__ import annotations

from datetime import UTC, datetime

from rich.text import Text

from coordinator.cli.json_form import enum_word
from handfast.v1 import participant_pb2, types_pb2

NOTHING = "–"

STYLES = {
    "ACTIVE": "cyan",
    "PREPARING": "cyan",
    "COMMITTING": "bold yellow",
    "ABORTING": "bold yellow",
    "IN_DOUBT": "bold magenta",
    "COMMITTED": "green",
    "ABORTED": "yellow",
    "FORGOTTEN": "dim",
    "YES": "green",
    "READ_ONLY": "cyan",
    "NO": "yellow",
    "OK": "green",
    "WARN": "bold yellow",
    "FAIL": "bold red",
    "ATOMIC": "bold green",
    "PENDING": "bold yellow",
    "DIFFERS": "bold red",
}
"""By word. What is not here is plain, and everything heuristic is red."""

SIGNS = {"COMMITTED": "✓", "ABORTED": "✗", "IN_DOUBT": "?"}
"""A branch's state where there is no room for its name."""

SEVERITIES: dict[int, str] = {
    participant_pb2.SEVERITY_OK: "OK",
    participant_pb2.SEVERITY_WARNING: "WARN",
    participant_pb2.SEVERITY_ERROR: "FAIL",
}


def transaction_state(number: int) -> str:
    """The state's name; a dash when it is not set."""
    return enum_word(types_pb2.TransactionState.DESCRIPTOR, number) or NOTHING


def branch_state(number: int) -> str:
    """The state's name; a dash when it is not set."""
    return enum_word(types_pb2.BranchState.DESCRIPTOR, number) or NOTHING


def vote(number: int) -> str:
    """The vote's name; a dash when there was none."""
    return enum_word(types_pb2.Vote.DESCRIPTOR, number) or NOTHING


def outcome(number: int) -> str:
    """The outcome's name; a dash when there is none yet."""
    return enum_word(types_pb2.Outcome.DESCRIPTOR, number) or NOTHING


def cause(number: int) -> str:
    """Why it was aborted, by name; empty when it was not."""
    return enum_word(types_pb2.AbortCause.DESCRIPTOR, number) or ""


def severity(number: int) -> str:
    """OK, WARN or FAIL; what is not set counts as WARN, because nobody said that all is well."""
    return SEVERITIES.get(number, "WARN")


def coloured(word: str, text: str | None = None) -> Text:
    """The word, or the text, in the word's colour."""
    style = "bold red" if word.startswith("HEURISTIC") else STYLES.get(word, "dim" if word == NOTHING else "")
    return Text(word if text is None else text, style=style)


def branch_sign(number: int) -> Text:
    """One sign for a branch's state."""
    word = branch_state(number)
    return coloured(word, SIGNS.get(word, "·"))


def duration(milliseconds: float) -> str:
    """A length of time in its two largest units: `340 ms`, `12.3 s`, `4 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, small_size, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    raise AssertionError(f"{milliseconds} ms fell between the units")


def moment(unix_ms: int, now_ms: int) -> str:
    """A time seen from now: `12.3 s ago`, `in 4.1 s`; a dash when it is 0."""
    if unix_ms == 0:
        return NOTHING
    if abs(unix_ms - now_ms) < 1:
        return "now"
    return f"{duration(now_ms - unix_ms)} ago" if unix_ms < now_ms else f"in {duration(unix_ms - now_ms)}"


def due(unix_ms: int, now_ms: int) -> str:
    """When something is due: `in 4.1 s`, or `now` when its time has come; a dash when it is 0."""
    return moment(unix_ms, now_ms) if unix_ms == 0 or unix_ms > now_ms else "now"


def clock_time(unix_ms: int) -> str:
    """A time as a date and clock in UTC, to the millisecond."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def count(number: int, one: str, many: str = "") -> str:
    """`1 lock`, `1,204 locks`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
