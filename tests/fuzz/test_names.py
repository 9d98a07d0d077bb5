"""Names, and the one place where they become SQL."""

import ast
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.xid import FORMAT_ID, Gtrid, MalformedName, Xid
from participant.clock import SystemClock
from participant.config import ParticipantOptions
from participant.postgres import branch
from participant.postgres.finish import Finisher
from participant.postgres.resource import PostgresResource
from tests.architecture.source_tree import REPOSITORY
from tests.fuzz.name_checks import GID, check_gid, check_names
from tests.fuzz.profile import bounded
from tests.fuzz.texts import LONG, any_text

GTRIDS = st.builds(
    lambda *parts: str(Gtrid(*parts)),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=8, max_size=8),
    st.integers(0, 36**8 - 1),
    st.integers(0, 36**10 - 1),
    st.integers(0, 36**12 - 1),
)
BQUALS = st.from_regex(r"[a-z][a-z0-9_-]{0,31}\.[a-z0-9][a-z0-9_-]{0,23}", fullmatch=True)
FORMATS = st.sampled_from([FORMAT_ID, 0, -1, 2**31])


@st.composite
def spoiled(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """A proper name with something put into it."""
    text = draw(texts)
    place = draw(st.integers(0, len(text)))
    return text[:place] + draw(any_text) + text[place:]


@bounded(100)
@given(
    gtrid=st.one_of(GTRIDS, spoiled(GTRIDS), any_text),
    bqual=st.one_of(BQUALS, spoiled(BQUALS), any_text),
    format_id=FORMATS,
)
def test_only_names_of_our_making_become_a_gid_and_they_come_back_whole(gtrid: str, bqual: str, format_id: int) -> None:
    check_names(gtrid, bqual, format_id)


GIDS = st.builds(lambda gtrid, bqual: Xid(gtrid, bqual).gid(), GTRIDS, BQUALS)


@bounded(100)
@given(st.one_of(GIDS, spoiled(GIDS), any_text))
def test_a_gid_is_ours_only_when_our_rules_made_it(text: str) -> None:
    check_gid(text)


@pytest.mark.parametrize("text", LONG, ids=["10 MiB", "quotes", "dots", "é"])
def test_a_name_of_megabytes_is_none(text: str) -> None:
    check_names(text, text, FORMAT_ID)
    check_gid(text)


# -- SQL -----------------------------------------------------------------------------------------------------------


class Untouched:
    """A pool that nobody may take a connection from."""

    async def take(self, *arguments: Any) -> NoReturn:
        raise AssertionError(f"a connection was taken for {arguments}")


@bounded(60)
@given(gtrid=st.one_of(spoiled(GTRIDS), any_text), bqual=st.one_of(BQUALS, spoiled(BQUALS)))
async def test_a_name_that_is_none_reaches_no_connection(gtrid: str, bqual: str) -> None:
    xid = Xid(gtrid, bqual, 0)
    pool: Any = Untouched()
    resource: Any = PostgresResource("dbname=nowhere")
    resource._work = resource._finish = pool
    resource._finisher = finisher = Finisher(pool, pool, "accounts", ParticipantOptions(), SystemClock())
    for ask in (
        resource.begin(xid, 5.0),
        resource.commit_prepared(xid, ""),
        resource.rollback_prepared(xid, ""),
        finisher.ends_of([(xid, "")]),
    ):
        with pytest.raises(MalformedName):
            await ask


class Recorded:
    """A connection that keeps what it was told."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def begin_branch(self) -> None:
        pass

    async def command(self, text: str, time_left_s: float | None = None) -> None:
        self.commands.append(text)


@bounded(60)
@given(gtrid=GTRIDS, bqual=BQUALS, time_left_s=st.floats(0.0, 2**32 / 1000))
async def test_between_the_quotes_of_a_command_stands_a_gid_and_every_time_is_one_that_postgres_takes(
    gtrid: str, bqual: str, time_left_s: float
) -> None:
    connection: Any = Recorded()
    await branch.begin(connection, Xid(gtrid, bqual).gid(), time_left_s, ParticipantOptions())
    (command,) = connection.commands
    before, quoted, after = command.split("'")
    assert GID.fullmatch(quoted)
    assert after == ""
    times = [int(word) for word in before.replace(";", " ").split() if word.isdigit()]
    assert len(times) == 2
    assert all(0 < milliseconds < 2**31 for milliseconds in times)


GIDS_IN_SQL = {"gid", "self._gid", "xid.gid()"}
CONSTANTS = {"_MARK"}


def test_nothing_else_is_ever_put_between_quotes_in_sql() -> None:
    """Read from the source: an interpolation right after a quote names a gid, and a gid comes from ``Xid.gid``."""
    found = []
    for path in sorted((REPOSITORY / "participant" / "postgres").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found += [(path.name, put) for put in _put_between_quotes(node)]
    assert sum(put in GIDS_IN_SQL for _, put in found) >= 4, "the statements are written otherwise now: look again"
    assert [one for one in found if one[1] not in GIDS_IN_SQL | CONSTANTS] == []


def _put_between_quotes(text: ast.JoinedStr) -> list[str]:
    quoted = []
    for before, value in zip(text.values, text.values[1:], strict=False):
        is_quote = isinstance(before, ast.Constant) and str(before.value).endswith("'")
        if is_quote and isinstance(value, ast.FormattedValue):
            quoted.append(ast.unparse(value.value))
    return quoted
