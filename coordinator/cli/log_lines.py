"""What the coordinator writes on standard error: one line for each thing that happened, as text or as JSON.

A secret in a message, an extra field or a traceback is masked here (``handfast.masking``), at the last step before the
line is written, so that no caller has to think of it.

A field given as ``extra`` (``log.info("…", extra={"gtrid": gtrid})``) is a key of the JSON line, and ``key=value`` at
the end of the text line.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from handfast.masking import masked

_PLAIN_FIELDS = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def configure_logging(level: str, form: Literal["text", "json"], stream: TextIO | None = None) -> None:
    """Send every log record of this process to the stream, and nowhere else.

    Args:
        level: the least level that is written, for example ``"info"``.
        form: ``text`` for people, ``json`` for one JSON object a line.
        stream: where to; standard error by default.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN_FIELDS}


class TextLines(logging.Formatter):
    """`2026-05-04T10:20:30.123Z WARNING coordinator.runtime: retry gtrid=… bqual=…`."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line; a traceback follows on lines of its own."""
        fields = "".join(f" {name}={value}" for name, value in _extras(record).items())
        lines = f"{_time(record)} {record.levelname:<7} {record.name}: {record.getMessage()}{fields}"
        for more in _tracebacks(self, record):
            lines += f"\n{more}"
        return masked(lines)


class JsonLines(logging.Formatter):
    """`{"time": …, "level": …, "logger": …, "message": …, …}` with a key for each extra field."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line; a traceback is the key `exception`."""
        fields: dict[str, Any] = {
            **_extras(record),
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if tracebacks := _tracebacks(self, record):
            fields["exception"] = "\n".join(tracebacks)
        first = ("time", "level", "logger", "message")
        ordered = {name: fields[name] for name in (*first, *(name for name in fields if name not in first))}
        return json.dumps({name: _masked_value(value) for name, value in ordered.items()}, ensure_ascii=False)


def _masked_value(value: Any) -> Any:
    """Masked before it is encoded: an escaped quote would hide where a password ends."""
    return value if value is None or isinstance(value, bool | int | float) else masked(str(value))


def _tracebacks(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    found = [formatter.formatException(record.exc_info)] if record.exc_info else []
    return [*found, formatter.formatStack(record.stack_info)] if record.stack_info else found
