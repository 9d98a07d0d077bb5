"""Sessions wait for the server in a way of their own: nothing is lost by it, and no socket is mixed up with another."""

import asyncio
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest
import uvloop
from psycopg.pq import TransactionStatus

from participant.clock import SystemClock
from participant.limits import Limit, Limits
from participant.postgres.session import Session
from tests.integration.participant.accounts_database import Database
from tests.waiting import eventually


@pytest.fixture
async def session(database: Database) -> AsyncIterator[Session]:
    session = await Session.connect(database.dsn, autocommit=True)
    yield session
    await session.close()


def status(session: Session) -> TransactionStatus:
    return TransactionStatus(session.pgconn.transaction_status)


async def test_the_last_statement_of_a_command_is_what_it_answers(session: Session) -> None:
    answer = await session.command("SELECT 'seven', NULL::text; BEGIN")
    assert (answer.tag, answer.row) == ("BEGIN", ("seven", None))
    assert (await session.command("COMMIT")).row == ()


async def test_after_a_statement_that_fails_the_rest_of_a_command_is_not_run(
    session: Session, database: Database
) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        await session.command("SELECT 1 / 0; UPDATE account SET value = 0")
    assert database.value() == 100
    assert (await session.command("SELECT 1")).row == ("1",)


async def test_a_statement_that_is_interrupted_ends_at_the_server_and_the_session_goes_on(
    session: Session, database: Database
) -> None:
    working = asyncio.create_task(session.execute("SELECT pg_sleep(60)"))
    await eventually(lambda: status(session) is TransactionStatus.ACTIVE)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert status(session) is TransactionStatus.IDLE
    assert (await session.command("SELECT 1")).row == ("1",)
    assert database.fetch("SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active'") == []


async def test_a_command_that_takes_too_long_fails_at_its_limit(session: Session) -> None:
    session.limits = Limits(SystemClock())
    assert (await session.command("SELECT 1", 60.0)).row == ("1",)
    with pytest.raises(TimeoutError):
        await session.command("SELECT pg_sleep(60)", 0.05)


async def test_a_command_is_on_its_way_before_its_limit_is_set(session: Session) -> None:
    class Noting(Limits):
        def start(self, limit_s: float, on_reached: Callable[[], None]) -> Limit:
            found.append(status(session))
            return super().start(limit_s, on_reached)

    found: list[TransactionStatus] = []
    session.limits = Noting(SystemClock())
    await session.command("SELECT 1", 60.0)
    assert found == [TransactionStatus.ACTIVE]


@pytest.mark.parametrize("how", ["close", "finish"])
async def test_a_statement_whose_session_is_closed_under_it_fails_at_once(database: Database, how: str) -> None:
    session = await Session.connect(database.dsn, autocommit=True)
    working = asyncio.create_task(session.execute("SELECT pg_sleep(60)"))
    await eventually(lambda: session._waiter is not None)
    if how == "close":
        await session.close()
    else:
        session.finish()
    await eventually(working.done)
    with pytest.raises(psycopg.OperationalError):
        await working


async def test_what_is_more_than_a_plain_wait_goes_on_as_psycopg_does_it(session: Session, database: Database) -> None:
    await session.execute("CREATE TEMP TABLE lines (line text)")
    async with session.cursor() as cursor, cursor.copy("COPY lines FROM STDIN") as copy:
        for number in range(20_000):  # more than the socket's buffer takes
            await copy.write_row((f"{number:0200d}",))
    async with session.pipeline():
        counted = await session.execute("SELECT count(*) FROM lines")
        await session.execute("LISTEN somebody")
    assert await counted.fetchone() == (20_000,)
    # Not by itself in the pipeline: what comes in one piece with the last answer, psycopg looks at when more comes.
    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as other:
        await other.execute("NOTIFY somebody, 'is here'")
    heard = [notify.payload async for notify in session.notifies(timeout=10, stop_after=1)]
    assert heard == ["is here"]


async def test_what_the_server_says_unasked_is_heard_by_whoever_speaks_to_it_next(
    session: Session, database: Database
) -> None:
    heard: list[str] = []
    session.add_notify_handler(lambda notify: heard.append(notify.payload))
    await session.execute("LISTEN somebody")
    database.execute("NOTIFY somebody, 'is here'")
    await eventually(lambda: session._reading_fd is None)  # or the loop would turn without end
    assert (await session.command("SELECT 1")).row == ("1",)
    assert heard == ["is here"]


async def end_while_idle(session: Session, database: Database) -> None:
    database.end_sessions()
    with pytest.raises(psycopg.OperationalError):
        await session.command("SELECT 1")


async def end_while_working(session: Session, database: Database) -> None:
    working = asyncio.create_task(session.execute("SELECT pg_sleep(60)"))
    await eventually(lambda: database.sessions("active") == 2)
    database.end_sessions()
    with pytest.raises(psycopg.OperationalError):
        await working


async def close_it(session: Session, database: Database) -> None:
    await session.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("end", [end_while_idle, end_while_working, close_it])
def test_a_session_that_has_ended_has_left_the_loop_before_its_socket_number_is_another_session_s(
    database: Database, loop: Callable[[], asyncio.AbstractEventLoop], end: Callable[[Session, Database], object]
) -> None:
    async def end_and_connect_again() -> tuple[int, int]:
        first = await Session.connect(database.dsn, autocommit=True)
        await first.command("SELECT 1")
        numbers = [first.pgconn.socket]
        await end(first, database)  # type: ignore[misc]  # a coroutine function
        again = await Session.connect(database.dsn, autocommit=True)
        numbers.append(again.pgconn.socket)
        await first.close()
        for number in range(3):
            assert (await again.command(f"SELECT {number}")).row == (str(number),)
        await again.close()
        return numbers[0], numbers[1]

    with asyncio.Runner(loop_factory=loop) as runner:
        before, after = runner.run(end_and_connect_again())
    assert before == after  # so the test has tried what it is about
