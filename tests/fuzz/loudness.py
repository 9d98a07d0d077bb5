"""What was logged as an error while something was tried; nothing should be."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

NOISE = "Event loop is closed"
"""gRPC's poller says this of a loop that an earlier test has closed."""


class _Collector(logging.Handler):
    def __init__(self, rightly: str) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []
        self._rightly = rightly

    def emit(self, record: logging.LogRecord) -> None:
        failure = record.exc_info[1] if record.exc_info else None
        said = f"{record.name}: {record.getMessage()} {failure!r}"
        if NOISE not in said and not (self._rightly and self._rightly in said):
            self.said.append(said)


@contextmanager
def quiet(rightly: str = "") -> Iterator[None]:
    """Fail when anything is logged as an error inside.

    Args:
        rightly: what may be said all the same.

    Raises:
        AssertionError: something was; the message holds all of it.
    """
    collector = _Collector(rightly)
    root = logging.getLogger()
    root.addHandler(collector)
    try:
        yield
    finally:
        root.removeHandler(collector)
    assert not collector.said, "\n".join(collector.said)
