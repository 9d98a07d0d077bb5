"""The participant that uses nothing of the SDK keeps its contract, and takes part in real transactions."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import handfast
from chaos.bank_stack import BankStack
from chaos.stack import ManagedProcess, free_port, release_port, wait_until
from examples.any_language.points import Points
from examples.bank.v1 import accounts_pb2
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.architecture.source_tree import REPOSITORY
from tests.docs.commands import replay
from tests.docs.pages import block_with

GUIDE = REPOSITORY / "docs" / "guide-any-language.md"
REGISTER = block_with(GUIDE, "Coordinator/Register", "console")
GTRID, BQUAL = "k3v9q2xw-3-0m9xk2f1c-2s", "points.static"
WAIT_S = 20.0


def add(customer: str, points: int) -> t.Operation:
    payload = json.dumps({"customer": customer, "points": points}).encode()
    return t.Operation(resource="points", name="add", payload=payload)


def prepare(*operations: t.Operation, gtrid: str = GTRID) -> p.PrepareRequest:
    return p.PrepareRequest(gtrid=gtrid, bqual=BQUAL, operations=operations, timeout_ms=5000)


COMMIT = p.ParticipantCommitRequest(gtrid=GTRID, bqual=BQUAL)
ROLLBACK = p.ParticipantRollbackRequest(gtrid=GTRID, bqual=BQUAL)


@pytest.fixture
def points(tmp_path: Path) -> Iterator[Points]:
    one = Points(str(tmp_path / "points.db"))
    yield one
    one.db.close()


def has(points: Points, customer: str) -> int:
    row = points.db.execute("SELECT points FROM account WHERE customer = ?", (customer,)).fetchone()
    return row[0] if row else 0


async def test_each_call_twice_gives_the_first_answer_and_counts_once(points: Points) -> None:
    votes = [(await points.Prepare(prepare(add("ann", 5)), None)).vote for _ in range(2)]
    ends = [(await points.Commit(COMMIT, None)).outcome for _ in range(2)]
    assert (votes, ends, has(points, "ann")) == ([t.VOTE_YES] * 2, [t.OUTCOME_COMMITTED] * 2, 5)


async def test_a_rollback_that_overtakes_its_prepare_makes_it_vote_no(points: Points) -> None:
    await points.Rollback(ROLLBACK, None)
    late = await points.Prepare(prepare(add("ann", 5)), None)
    assert (late.vote, late.reason_code) == (t.VOTE_NO, "ROLLED_BACK_FIRST")


async def test_what_ended_the_other_way_is_told_as_heuristic(points: Points) -> None:
    await points.Rollback(ROLLBACK, None)
    assert (await points.Commit(COMMIT, None)).outcome == t.OUTCOME_HEURISTIC_ROLLBACK


async def test_a_prepared_branch_keeps_others_away_until_it_ends(points: Points) -> None:
    await points.Prepare(prepare(add("ann", 5)), None)
    other = prepare(add("ann", 1), gtrid="k3v9q2xw-3-0m9xk2f1c-2t")
    busy = await points.Prepare(other, None)
    await points.Rollback(ROLLBACK, None)
    assert (busy.reason_code, (await points.Prepare(other, None)).vote) == ("LOCK_TIMEOUT", t.VOTE_YES)


@pytest.fixture
async def served(bank: BankStack, bank_ports: dict[str, str], tmp_path: Path) -> AsyncIterator[Path]:
    """The participant as a process, registered by the guide's own command. Gives its database."""
    database, port = tmp_path / "points.db", free_port()
    argv = [sys.executable, "-m", "examples.any_language.points", str(database), str(port)]
    process = ManagedProcess("points", argv, log=tmp_path / "points.log", ready="points is ready")
    process.start()
    try:
        replay(REGISTER, bank_ports | {"127.0.0.1:7600": f"127.0.0.1:{port}"}, REPOSITORY)
        wait_until(lambda: reached(bank, port), WAIT_S, "the coordinator reaches it")
        yield database
    finally:
        process.close()
        release_port(port)


def reached(bank: BankStack, port: int) -> bool:
    return any(one.address.endswith(f":{port}") and one.reachable for one in bank.admin.participants())


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def work(customer: str, points: int, transfer: str) -> list[tuple[str, str, bytes]]:
    withdraw = accounts_pb2.WithdrawRequest(account=7, amount=100, transfer=transfer).SerializeToString()
    return [("accounts", "withdraw", withdraw), ("points", "add", add(customer, points).payload)]


async def test_it_commits_together_with_a_postgres_and_alone(bank: BankStack, served: Path) -> None:
    async with handfast.connect(bank.client_addresses()["coordinator"]) as tm:
        await tm.execute(work("ann", 5, "p-1"), timeout=5)
        await tm.execute([("points", "add", add("ann", 2).payload)], timeout=5)
    assert rows(served, "SELECT customer, points FROM account") == [("ann", 7)]
    assert bank.money()["accounts"] == 99_900


async def test_its_no_rolls_the_postgres_back(bank: BankStack, served: Path) -> None:
    async with handfast.connect(bank.client_addresses()["coordinator"]) as tm:
        with pytest.raises(handfast.TransactionAborted, match="ann has not so many points"):
            await tm.execute(work("ann", -5, "p-2"), timeout=5)
    assert bank.money()["accounts"] == 100_000


async def test_an_orphan_is_found_by_recover_and_rolled_back(bank: BankStack, served: Path) -> None:
    bank.coordinator.stop()
    bank.start_coordinator(failpoint="before-force")
    bank.wait_reachable()
    async with handfast.connect(bank.client_addresses()["coordinator"], outcome_wait=0) as tm:
        with pytest.raises(handfast.OutcomeUnknown):
            await tm.execute(work("ann", 5, "p-3"), timeout=2)
    assert rows(served, "SELECT state FROM branch") == [("prepared",)]
    bank.start_coordinator()
    wait_until(lambda: rows(served, "SELECT state FROM branch") == [("aborted",)], WAIT_S, "the orphan is ended")
    bank.wait_nothing_prepared()
    assert bank.money()["accounts"] == 100_000
