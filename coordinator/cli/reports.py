"""The commands that ask the coordinator once and show its answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from cyclopts import Parameter

from coordinator.cli.admin import DEFAULT_TARGET, Switch, Target, connect
from coordinator.cli.exit_codes import Exit
from coordinator.cli.output import answer
from coordinator.cli.show_audit import ATOMIC, audit, verdict
from coordinator.cli.show_doctor import doctor, failed
from coordinator.cli.show_indoubt import indoubt
from coordinator.cli.show_operations import operations
from coordinator.cli.show_status import participants, status
from handfast.clock import unix_ms
from handfast.v1 import admin_pb2


async def status_command(*, target: Target = DEFAULT_TARGET) -> int:
    """Tell who the coordinator is and how it is doing."""
    async with connect(target) as admin:
        response = await admin.ask(admin.calls.GetStatus, admin_pb2.GetStatusRequest())
    answer(response, as_json=target.json, render=lambda: status(response, target.address))
    return Exit.OK


async def participants_command(*, target: Target = DEFAULT_TARGET) -> int:
    """List the registered participants, and whether each can be reached now."""
    async with connect(target) as admin:
        response = await admin.ask(admin.calls.ListParticipants, admin_pb2.ListParticipantsRequest())
    answer(response, as_json=target.json, render=lambda: participants(response, unix_ms()))
    return Exit.OK


async def indoubt_command(*, target: Target = DEFAULT_TARGET) -> int:
    """Show each branch in doubt: why, since when, what it blocks, and the command that resolves it."""
    async with connect(target) as admin:
        response = await admin.ask(admin.calls.ListInDoubt, admin_pb2.ListInDoubtRequest())
    answer(response, as_json=target.json, render=lambda: indoubt(response, address_suffix(target)))
    return Exit.OK


async def doctor_command(*, target: Target = DEFAULT_TARGET) -> int:
    """Check the log, the clock, each participant and each database, and say how to mend what is wrong.

    The exit code is 1 when a finding is FAIL.
    """
    async with connect(target) as admin:
        response = await admin.ask(admin.calls.Diagnose, admin_pb2.DiagnoseRequest())
    answer(response, as_json=target.json, render=lambda: doctor(response))
    return Exit.FINDING if failed(response.findings) else Exit.OK


async def operations_command(
    *,
    refused: Annotated[bool, Switch(help="Only what was refused.")] = False,
    gtrid: Annotated[str, Parameter(help="Only about this transaction.", show_default=False)] = "",
    limit: Annotated[int, Parameter(help="How many at most.")] = 100,
    target: Target = DEFAULT_TARGET,
) -> int:
    """List what operators did and who was refused what, the newest first: who, when, what, why, before and after."""
    async with connect(target) as admin:
        request = admin_pb2.ListOperationsRequest(refused_only=refused, gtrid=gtrid, limit=limit)
        response = await admin.ask(admin.calls.ListOperations, request)
    answer(response, as_json=target.json, render=lambda: operations(response))
    return Exit.OK


async def audit_command(
    *,
    since_h: Annotated[
        float | None,
        Parameter(help="Only transactions decided in the last so many hours; without it, all in the log."),
    ] = None,
    target: Target = DEFAULT_TARGET,
) -> int:
    """Compare the log with every participant: ATOMIC, PENDING, or DIFFERS with the evidence.

    The exit code is 0 only when the verdict is ATOMIC.
    """
    since_ms = 0 if since_h is None else max(1, unix_ms() - timedelta(hours=since_h) // timedelta(milliseconds=1))
    async with connect(target) as admin:
        response = await admin.ask(admin.calls.Audit, admin_pb2.AuditRequest(since_unix_ms=since_ms))
    answer(response, as_json=target.json, render=lambda: audit(response))
    return Exit.OK if verdict(response) == ATOMIC else Exit.FINDING


def address_suffix(target: Target) -> str:
    """What a suggested command needs at its end to reach the same coordinator."""
    return "" if target.address == DEFAULT_TARGET.address else f" --address {target.address}"
