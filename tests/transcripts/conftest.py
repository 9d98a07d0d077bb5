"""The option that writes the transcripts afresh."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-transcripts",
        action="store_true",
        help="write the traces of tests/transcripts/scenarios as they come out now; read the difference",
    )
