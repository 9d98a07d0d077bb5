"""What the coordinator writes: a line for each thing, in two forms, and never a password."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest

from coordinator.cli.log_lines import configure_logging
from handfast.masking import masked


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the lines go; logging is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)  # which also has all loggers forget what they have looked up
    logging.captureWarnings(False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://bank:s3cret@db:5432/accounts", "postgresql://bank:***@db:5432/accounts"),
        ("postgres://bank:p@ss/w:rd@db/accounts?a=b", "postgres://bank:***@db/accounts?a=b"),
        ("postgresql://:s3cret@db", "postgresql://:***@db"),
        ("postgresql://db/x?user=bank&password=s3cret&sslmode=require", "postgresql://db/x?user=bank&password=***&sslmode=require"),
        ("host=db password=s3cret user=bank", "host=db password=*** user=bank"),
        ("host=db password = 's3 \\' cret' user=bank", "host=db password = *** user=bank"),
        ('{"password": "s3cret", "user": "bank"}', '{"password": ***, "user": "bank"}'),
        ("{'password': 's3cret', 'user': 'bank'}", "{'password': ***, 'user': 'bank'}"),
        ("sslpassword=s3cret", "sslpassword=***"),
        ("PGPASSWORD=s3cret psql", "PGPASSWORD=*** psql"),
    ],
)  # fmt: skip
def test_a_password_is_masked_in_every_spelling_of_a_dsn(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://bank@db:5432/accounts",
        "http://127.0.0.1:7400/health",
        "retry of accounts.7hx2k9qd at 127.0.0.1:7501",
        "password authentication failed for user bank",
    ],
)
def test_what_holds_no_password_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_way_into_a_line_leads_around_the_mask(stream: io.StringIO, form: Literal["text", "json"]) -> None:
    configure_logging("info", form, stream)
    log = logging.getLogger("coordinator.runtime")
    dsn = "postgresql://bank:s3cret@db/accounts"
    try:
        raise OSError(f"can't reach {dsn}")
    except OSError:
        log.exception("connecting to %s", dsn, extra={"dsn": dsn, "kwargs": {"password": "s3cret"}}, stack_info=True)
    assert "s3cret" not in stream.getvalue()
    assert stream.getvalue().count("bank:***@db") >= 3


def test_a_json_line_has_a_key_for_each_extra_field(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream)
    logging.getLogger("coordinator.runtime").warning(
        "retry %d", 7, extra={"gtrid": "k3v9q2xw-3-0m9xk2f1c-2s", "delay_s": 4.1, "bqual": None}
    )
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "coordinator.runtime",
        "message": "retry 7",
        "gtrid": "k3v9q2xw-3-0m9xk2f1c-2s",
        "delay_s": 4.1,
        "bqual": None,
    }


def test_a_traceback_stays_inside_its_json_line(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream)
    try:
        raise RuntimeError("no")
    except RuntimeError:
        logging.getLogger("coordinator").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["exception"].endswith("RuntimeError: no")


def test_a_text_line_ends_with_its_extra_fields(stream: io.StringIO) -> None:
    configure_logging("info", "text", stream)
    logging.getLogger("coordinator.runtime").warning("retry", extra={"gtrid": "g", "attempt": 7})
    assert stream.getvalue().endswith("Z WARNING coordinator.runtime: retry gtrid=g attempt=7\n")


def test_only_the_level_asked_for_and_above_is_written(stream: io.StringIO) -> None:
    configure_logging("warning", "text", stream)
    logging.getLogger("coordinator").info("small talk")
    logging.getLogger("coordinator").warning("news")
    assert "small talk" not in stream.getvalue()
    assert "news" in stream.getvalue()
