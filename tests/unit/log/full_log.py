"""A log with everything in it that a log can hold."""

from functools import partial
from pathlib import Path

from tests.conformance.decision_logs import (
    abort,
    answer_of,
    commit,
    decide,
    ended,
    gtrid,
    participant,
    register,
)
from tests.unit.log.sqlite_logs import opened, sqlite_log

DECISIONS = 30


async def fill_with_everything(path: Path) -> None:
    """Make a log: decision N at position N + 1, ends of all but the last six, a participant that registered twice, what
    retention and an operator have dropped, and last an abort, of transaction 100."""
    async with opened(sqlite_log(path)) as log:
        for number in range(1, DECISIONS + 1):
            await decide(log, commit(number))
        for number in range(1, DECISIONS - 5):
            log.end(ended(number))
        await register(log, participant("ledger", "a", "h:1"))
        await register(log, participant("ledger", "a", "h:2"))
        assert await answer_of(partial(log.forget_before, 6)) == 5
        assert await answer_of(partial(log.forget, gtrid(10))) is None
        await decide(log, abort(100))
