"""Canaries: a password, a token and a key are put wherever errors come from, and must come out nowhere."""

import io
import json
import logging
import string
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

import handfast
from coordinator.cli.app import run_async
from coordinator.cli.log_lines import configure_logging
from coordinator.rpc.trail import Trail
from handfast.catalog import ENTRIES, HandfastFault
from handfast.frames import CallFailed
from handfast.v1 import admin_pb2 as a
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from participant import wire
from participant.resource import Finding, Severity
from tests.clock import ManualClock
from tests.integration.coordinator.edge import Edge, begin, operation, serving
from tests.integration.coordinator.participants import Scripted

CANARY = "c4nary"
SECRETS = (
    f"connection to postgresql://bank:{CANARY}@db:5432/accounts failed",
    f"bad dsn: host=db user=bank password='{CANARY} and more'",
    f"authorization: Bearer {CANARY}.0123456789abcdef",
    f"-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----",
)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the coordinator would write on standard error."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("debug", "json", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)  # which also has all loggers forget what they have looked up
    logging.captureWarnings(False)


@pytest.mark.parametrize("secret", SECRETS, ids=["URI", "keywords", "token", "key"])
@pytest.mark.parametrize("code", ENTRIES)
def test_no_error_of_the_catalog_tells_a_secret(code: str, secret: str) -> None:
    fields = dict.fromkeys(_field_names(code), secret) | {"gtrid": "g", "bqual": "b"}
    for given in (fields, {name: _as_exception(name, value) for name, value in fields.items()}):
        fault = HandfastFault(code, **given)
        assert CANARY not in f"{fault} {fault.message} {fault.mend}"


def _field_names(code: str) -> set[str]:
    entry = ENTRIES[code]
    parsed = [*string.Formatter().parse(entry.message), *string.Formatter().parse(entry.mend)]
    return {name for _, name, _, _ in parsed if name}


def _as_exception(name: str, value: str) -> Any:
    return value if name in ("gtrid", "bqual") else ValueError(value)


def test_a_peer_s_failure_and_a_finding_tell_no_secret() -> None:
    for secret in SECRETS:
        failure = CallFailed("INTERNAL", secret, grpc_status=13, maybe_executed=True)
        assert CANARY not in f"{failure} {failure.message}"
        found = wire.finding(Finding("connection", Severity.ERROR, secret, secret), "accounts")
        assert CANARY not in f"{found}"


@pytest.mark.parametrize("secret", SECRETS, ids=["URI", "keywords", "token", "key"])
async def test_what_a_participant_of_any_make_says_goes_nowhere_with_a_secret_in_it(
    log: io.StringIO, capsys: pytest.CaptureFixture[str], secret: str
) -> None:
    """It votes NO with a secret, fails with one, and shows one in its findings; then every report is printed."""
    accounts, ledger = Scripted("accounts"), Scripted("ledger")
    accounts.answers[p.PrepareRequest] = lambda request: p.PrepareResponse(
        vote=t.VOTE_NO, reason=secret, reason_code="OPERATION_FAILED"
    )
    ledger.answers[p.ParticipantRollbackRequest] = lambda request: HandfastFault("INTERNAL", problem=secret)
    accounts.findings = [wire.finding(Finding("connection", Severity.ERROR, secret), "accounts")]
    async with serving(accounts, ledger, apply_wait_s=0.1) as edge:
        operations = [operation("accounts"), operation("ledger")]
        answer = await edge.unary()(c.ExecuteRequest(operations=operations))
        assert answer.outcome == t.OUTCOME_ABORTED
        gtrid = answer.gtrid
        told = str(answer)
        address = ("--address", edge.server.address)
        for command in ("transactions list", f"transactions show {gtrid}", "doctor", "indoubt", "audit", "operations"):
            for form in ((), ("--json",)):
                await run_async([*command.split(), *address, *form])
        captured = capsys.readouterr()
        told += captured.out + captured.err + log.getvalue()
    assert gtrid in told
    assert CANARY not in told


async def test_a_reason_with_a_secret_is_kept_without_it() -> None:
    async with serving() as edge:
        ask = edge.unary()
        gtrid, other = await begin(ask), await begin(ask)
        await edge.admin.Resolve(
            a.ResolveRequest(gtrid=gtrid, action=a.RESOLVE_ACTION_ROLLBACK, operator="alice", reason=SECRETS[0])
        )
        await ask(c.RollbackRequest(gtrid=other, reason=SECRETS[1]))
        kept = [*edge.log.resolutions(gtrid), *edge.server.trail.entries(10)]
        kept += [
            edge.server.requests.show(one) and str(_reason(edge.server.requests.show(one))) for one in (gtrid, other)
        ]
        assert "bank" in str(kept)
        assert CANARY not in str(kept)


def _reason(running: Any) -> str:
    return str(running.transaction.reason)


def test_the_trail_s_file_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "trail.jsonl"
    trail = Trail(ManualClock(), path)
    trail.did("alice", "resolve --commit", peer="", gtrid="g", reason=SECRETS[0], before="a", after="b")
    assert json.loads(path.read_text())["reason"] == "connection to postgresql://bank:***@db:5432/accounts failed"


async def test_the_client_s_error_tells_no_secret() -> None:
    accounts = Scripted("accounts")
    accounts.answers[p.CommitOnePhaseRequest] = lambda request: p.CommitOnePhaseResponse(
        outcome=t.OUTCOME_ABORTED, reason=SECRETS[0], reason_code="OPERATION_FAILED"
    )
    async with serving(accounts) as edge, handfast.connect(edge.server.address) as tm:
        with pytest.raises(handfast.TransactionAborted, match="bank:") as aborted:
            await tm.execute([("accounts", "work", b"")])
    assert CANARY not in f"{aborted.value} {vars(aborted.value)}"


async def test_a_token_is_repeated_nowhere(tmp_path: Path, log: io.StringIO) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("# nobody\n")
    async with serving_nobody(tokens) as edge:
        for scheme in ("Bearer", "Basic"):
            metadata = (("authorization", f"{scheme} {CANARY}"),)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await edge.admin.GetStatus(a.GetStatusRequest(), metadata=metadata)
            assert CANARY not in f"{refused.value.details()} {edge.server.trail.entries(10)} {log.getvalue()}"
        assert edge.server.trail.entries(10)


@asynccontextmanager
async def serving_nobody(tokens: Path) -> AsyncIterator[Edge]:
    """A coordinator that knows no token."""
    edge = Edge(None, tokens_file=tokens, stop_grace_s=0)
    await edge.start()
    yield edge
    await edge.channel.close(None)
    await edge.server.stop()
