"""A run followed from its trace alone: real processes, one of which is killed between the decision and its sending."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import handfast
from chaos.bank_stack import BankPlan, BankStack
from chaos.stack import Stack
from chaos.trace_check import check
from chaos.trace_lines import read
from examples.bank.client import Payment
from handfast.trace import ENVIRONMENT_VARIABLE
from tests.architecture.source_tree import REPOSITORY
from tests.integration.e2e.bank_world import client_of, moved, off_loop, restart_coordinator

QUICK = {"apply_wait_s": 2, "retry_cap_s": 0.5, "sweep_interval_s": 0.5}
CANARY = "c4nary"
SECRETS = (CANARY, "password", "postgresql://", "dbname=")
"""The first is in a payload, the others would be a DSN's."""


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that every process of this test appends to, this one included."""
    path = tmp_path / "trace.jsonl"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(path))
    return path


@pytest.fixture
def traced_bank(trace: Path) -> Iterator[BankStack]:
    with Stack() as stack:
        bank = BankStack(stack, BankPlan(accounts=10, fsync=False, coordinator_flags=QUICK)).start()
        yield bank
        for process in bank.services.values():
            process.kill()


async def test_a_coordinator_killed_between_decision_and_sending_is_followed_from_the_trace_alone(
    traced_bank: BankStack, trace: Path
) -> None:
    bank = traced_bank
    await off_loop(restart_coordinator, bank, "after-force")
    paid, late, too_much = payment(f"t-{CANARY}", cents=5), payment("t-2", cents=5), payment("t-3", cents=10**7)
    async with client_of(bank) as client:
        paying = asyncio.create_task(client.pay_at_once(paid))
        await off_loop(bank.coordinator.wait, 10)
        await off_loop(bank.start_coordinator)
        gtrid = await paying
        await off_loop(bank.wait_reachable)
        await client.pay(late)
        with pytest.raises(handfast.TransactionAborted):
            await client.pay_at_once(too_much)
        await off_loop(bank.wait_nothing_prepared, 10)
        assert await off_loop(moved, bank, paid)

    verdict = check(read([trace]), at_rest=True)
    assert [str(one) for one in verdict.broken] == []
    assert (verdict.counts["transactions"], verdict.by_hand) == (3, set())
    assert steps_of_coordinator(trace, gtrid, epoch=2)[-1] == "VoteReceived"  # it forced, and died before it could say
    assert steps_of_coordinator(trace, gtrid, epoch=3) == ["Recovered", "BranchEnded", "BranchEnded"]
    assert {line["role"] for line in lines_of(trace, gtrid)} == {"coordinator", "participant", "client"}
    assert secrets_in(trace) == []


def test_a_trace_that_can_t_be_written_stops_the_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "coordinator", "serve", "--log", str(tmp_path / "log"), "--address", "127.0.0.1:0"]
    environment = {**os.environ, ENVIRONMENT_VARIABLE: str(tmp_path / "no such folder" / "trace")}
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (done.returncode != 0, "SETTING_INVALID" in done.stderr, "trace" in done.stderr) == (True, True, True)
    assert not (tmp_path / "log").exists()


def payment(transfer: str, cents: int) -> Payment:
    return Payment(transfer, customer=1, merchant=2, cents=cents)


def secrets_in(path: Path) -> list[str]:
    text = path.read_text()
    return [secret for secret in SECRETS if secret in text]


def lines_of(path: Path, gtrid: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["gtrid"] == gtrid]


def steps_of_coordinator(path: Path, gtrid: str, epoch: int) -> list[str]:
    own = [line for line in lines_of(path, gtrid) if line["role"] == "coordinator"]
    return [line["event"] for line in own if line["epoch"] == epoch]
