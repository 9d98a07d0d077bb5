"""A copy of the log is put back in place of the log: what it has never seen is left to a person, and called so."""

import asyncio
import shutil
from pathlib import Path

import grpc
import pytest

import handfast
from chaos.bank_stack import BankStack
from chaos.stack import wait_until
from handfast import Standing
from handfast.v1 import admin_pb2 as a
from handfast.v1 import admin_pb2_grpc
from handfast.v1 import participant_pb2 as p
from tests.integration.e2e.bank_world import client_of, next_payment, off_loop, restart_coordinator

SUFFIXES = ("", "-wal")


def copy_log(bank: BankStack, folder: Path) -> None:
    """Copy the log of a coordinator that is not running."""
    for suffix in SUFFIXES:
        if (file := Path(f"{bank.log}{suffix}")).exists():
            shutil.copy(file, folder / f"copy{suffix}")


def put_back(bank: BankStack, folder: Path) -> None:
    """Put the copy in the log's place."""
    for suffix in (*SUFFIXES, "-shm"):
        Path(f"{bank.log}{suffix}").unlink(missing_ok=True)
        if (file := folder / f"copy{suffix}").exists():
            shutil.copy(file, f"{bank.log}{suffix}")


async def test_an_old_copy_of_the_log_presumes_nothing_of_the_life_that_it_lacks(
    bank: BankStack, tmp_path: Path
) -> None:
    bank.coordinator.kill()
    await off_loop(copy_log, bank, tmp_path)
    await off_loop(restart_coordinator, bank, "mid-commit")
    lost_epoch = (await off_loop(bank.admin.status)).epoch
    async with client_of(bank, timeout=5, outcome_wait=0) as client:
        paying = asyncio.create_task(client.pay(next_payment()))
        await off_loop(bank.coordinator.wait, 10)
        with pytest.raises(handfast.OutcomeUnknown) as unknown:
            await paying
    gtrid = unknown.value.gtrid
    assert len(await off_loop(bank.prepared)) == 1, "the other half has committed"

    await off_loop(put_back, bank, tmp_path)
    await off_loop(bank.start_coordinator)
    await off_loop(bank.wait_reachable)
    assert (await off_loop(bank.admin.status)).epoch == lost_epoch
    complaint = f"of {gtrid} comes from a life of this coordinator that its log has never seen"
    await off_loop(wait_until, lambda: complaint in bank.coordinator.log.read_text(), 10, "no sweep said what it found")
    assert len(await off_loop(bank.prepared)) == 1

    async with client_of(bank) as later:
        assert (await later.tm.outcome(gtrid, branches=2)).standing is Standing.UNKNOWN
    (listed,) = (await off_loop(bank.admin.in_doubt)).branches
    assert (listed.branch.gtrid, "its log has never seen" in listed.why) == (gtrid, True)
    audit = await off_loop(bank.admin.audit)
    assert audit.verdict == "differs"
    assert gtrid in [one.gtrid for one in audit.differences]

    async with grpc.aio.insecure_channel(bank.listening("coordinator")) as channel:
        admin = admin_pb2_grpc.AdminStub(channel)
        findings = (await admin.Diagnose(a.DiagnoseRequest())).findings
        (age,) = [one for one in findings if one.check == "log's age"]
        assert (age.severity, gtrid in age.found, "--commit --heuristic" in age.mend) == (p.SEVERITY_ERROR, True, True)
        # What its advice comes to, once somebody has found out that the other half committed.
        await admin.Resolve(a.ResolveRequest(gtrid=gtrid, action=a.RESOLVE_ACTION_COMMIT, heuristic=True))
    await off_loop(bank.wait_nothing_prepared, 10)
    audit = await off_loop(bank.admin.audit)
    # Not the verdict: what other tests did to their transactions, and participants of theirs that are gone, are in it.
    assert gtrid not in [one.gtrid for one in audit.differences]
    assert audit.in_doubt == 0
