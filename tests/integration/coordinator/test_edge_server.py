"""The server around the services: probes, reflection, ports, TLS, limits, and stopping in good order."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordinator.config import CoordinatorConfig
from coordinator.log.memory import MemoryLog
from coordinator.log.records import DecisionRecord, EndRecord
from coordinator.log.sqlite import SqliteLog
from coordinator.protocol.states import Decision, Outcome
from coordinator.rpc.server import EXIT_LOG_BROKEN, CoordinatorServer
from coordinator.runtime.entropy import SeededEntropy
from coordinator.runtime.failpoints import ENVIRONMENT_VARIABLE
from handfast.catalog import HandfastFault
from handfast.clock import unix_ms
from handfast.collector import YOUNG_MAX
from handfast.frames import CallFailed, channel_options
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import coordinator_pb2_grpc
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.integration.coordinator.edge import Edge, begin, operation, refusal, serving
from tests.integration.coordinator.participants import Locked, Scripted
from tests.waiting import eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


# -- probes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", "handfast.v1.Coordinator", "handfast.v1.Admin"])
async def test_health_is_serving_and_then_not_serving_while_it_stops(service: str) -> None:
    accounts, ledger = Scripted("accounts"), Scripted("ledger")
    async with serving(accounts, ledger, stop_grace_s=30) as edge:
        health: Any = health_pb2_grpc.HealthStub(edge.channel)  # its stub has no methods
        assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
        ledger.answers[p.ParticipantCommitRequest] = lambda request: HandfastFault("INTERNAL", problem="not now")
        gtrid = await begin(edge.unary(), accounts, ledger)
        await edge.unary()(c.CommitRequest(gtrid=gtrid, wait=c.WAIT_DECIDED))
        stopping = asyncio.create_task(edge.server.stop())
        await eventually(lambda: edge.server.requests.stopping)
        assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == NOT_SERVING
        del ledger.answers[p.ParticipantCommitRequest]
        await stopping
        assert ledger.ends == {(gtrid, "ledger.one"): t.BRANCH_STATE_COMMITTED}


async def test_reflection_lists_the_services() -> None:
    async with serving() as edge:
        reflection: Any = reflection_pb2_grpc  # its stub knows no asyncio
        stub = reflection.ServerReflectionStub(edge.channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        described = reflection_pb2.ServerReflectionRequest(file_containing_symbol="handfast.v1.Coordinator")
        listed, file = [answer async for answer in stub.ServerReflectionInfo(iter([asked, described]))]
        names = {service.name for service in listed.list_services_response.service}
        assert names >= {"handfast.v1.Coordinator", "handfast.v1.Admin", "grpc.health.v1.Health"}
        assert file.file_descriptor_response.file_descriptor_proto


# -- ports and limits ----------------------------------------------------------------------------------------------


async def test_a_port_in_use_is_refused_by_name_and_leaves_nothing_open(tmp_path: Path) -> None:
    async with serving() as edge:
        entropy = SeededEntropy(2)
        log = SqliteLog(
            tmp_path / "log.db",
            make_coordinator_id=entropy.coordinator_id,
            on_broken=lambda broken: None,
            unix_ms=unix_ms,
        )
        second = CoordinatorServer(
            CoordinatorConfig(address=edge.server.address), lambda on_broken: log, lambda broken: None
        )
        with pytest.raises(HandfastFault) as refused:
            await second.start()
        assert refused.value.code == "ADDRESS_IN_USE"
        assert "Address already in use" in refused.value.message
        await log.open()  # it was closed, or this is refused
        await log.close()


async def test_a_message_past_the_size_limit_is_refused_and_the_server_goes_on() -> None:
    async with serving() as edge:
        unlimited = [("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(edge.server.address, options=unlimited) as channel:
            stub = coordinator_pb2_grpc.CoordinatorStub(channel)
            large = c.ExecuteRequest(operations=[operation("accounts", payload=b"x" * (17 * 1024 * 1024))])
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Execute(large)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await stub.Begin(c.BeginRequest())).gtrid


# -- TLS -----------------------------------------------------------------------------------------------------------


PKI = Path(__file__).with_name("tls")
"""Two certificates for localhost, each its own authority."""


def _tls_channel(edge: Edge, client: str = "") -> grpc.aio.Channel:
    key, chain = (
        ((PKI / f"{client}.key").read_bytes(), (PKI / f"{client}.pem").read_bytes()) if client else (None, None)
    )
    credentials = grpc.ssl_channel_credentials((PKI / "server.pem").read_bytes(), key, chain)
    return grpc.aio.secure_channel(edge.server.address, credentials, options=channel_options())


@asynccontextmanager
async def _begun(channel: grpc.aio.Channel) -> AsyncIterator[str]:
    async with channel:
        response = await coordinator_pb2_grpc.CoordinatorStub(channel).Begin(c.BeginRequest(), timeout=10)
        yield response.gtrid


async def test_tls_serves_whoever_trusts_the_certificate() -> None:
    async with serving_tls() as edge, _begun(_tls_channel(edge)) as gtrid:
        assert gtrid


async def test_with_a_client_authority_only_its_clients_are_served() -> None:
    async with serving_tls(tls_client_ca=PKI / "server.pem") as edge:
        async with _begun(_tls_channel(edge, client="server")) as gtrid:
            assert gtrid
        for stranger in ("", "other"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async with _begun(_tls_channel(edge, client=stranger)):
                    pass
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_key_of_another_certificate_is_refused_by_the_setting() -> None:
    with pytest.raises(HandfastFault) as refused:
        async with serving_tls(tls_key=PKI / "other.key"):
            pass
    assert refused.value.code == "SETTING_INVALID"
    assert "tls_cert" in refused.value.message


@asynccontextmanager
async def serving_tls(**settings: Path) -> AsyncIterator[Edge]:
    files = {"tls_cert": PKI / "server.pem", "tls_key": PKI / "server.key"} | settings
    edge = Edge(None, stop_grace_s=0, **files)
    await edge.start()
    yield edge
    await edge.channel.close(None)
    await edge.server.stop()


# -- stopping ------------------------------------------------------------------------------------------------------


async def test_a_stop_finishes_what_is_decided_and_answers_who_waits() -> None:
    accounts, ledger = Scripted("accounts"), Scripted("ledger")
    held: list[str] = []
    ledger.answers[p.ParticipantCommitRequest] = lambda request: held.append(request.gtrid)
    async with serving(accounts, ledger, stop_grace_s=30, apply_wait_s=60, retry_base_s=0.05) as edge:
        ask = edge.framed()
        gtrid = await begin(ask, accounts, ledger)
        committing = asyncio.create_task(ask(c.CommitRequest(gtrid=gtrid)))
        await eventually(lambda: held == [gtrid])
        stopping = asyncio.create_task(edge.server.stop())
        await eventually(lambda: edge.server.requests.stopping)
        assert (await refusal(ask, c.BeginRequest())).code == "COORDINATOR_STOPPING"
        del ledger.answers[p.ParticipantCommitRequest]
        await ledger.stop()  # the unanswered Commit is lost, and sent again when the participant is back
        await ledger.start()
        assert (await committing).outcome == t.OUTCOME_COMMITTED
        await stopping
        assert ledger.ends == {(gtrid, "ledger.one"): t.BRANCH_STATE_COMMITTED}


async def test_a_stop_lets_phase_one_come_to_its_end() -> None:
    accounts, ledger = Scripted("accounts"), Scripted("ledger")
    async with serving(accounts, ledger, stop_grace_s=30) as edge:
        voting = asyncio.Event()
        ledger.answers[p.PrepareRequest] = lambda request: voting.set()
        ask = edge.framed()
        gtrid = await begin(ask, accounts, ledger, timeout_ms=600)
        committing = asyncio.create_task(ask(c.CommitRequest(gtrid=gtrid)))
        await voting.wait()
        await edge.server.stop()
        response = await committing
        assert (response.outcome, response.cause) == (t.OUTCOME_ABORTED, t.ABORT_CAUSE_DEADLINE)
        assert accounts.ends == {(gtrid, "accounts.one"): t.BRANCH_STATE_ABORTED}


async def test_a_stop_rolls_back_what_has_no_decision_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vote that does not come waits for a lock; in a deadlock across databases it would until its time is over."""
    monkeypatch.setattr("coordinator.rpc.server.VOTES_WAIT_S", 0.05)
    accounts, ledger = Scripted("accounts"), Locked("ledger")
    ledger.locked = True
    async with serving(accounts, ledger, stop_grace_s=30) as edge:
        ask = edge.framed()
        gtrid = await begin(ask, accounts, ledger)
        committing = asyncio.create_task(ask(c.CommitRequest(gtrid=gtrid)))
        await eventually(lambda: gtrid in ledger.waiting)
        await edge.server.stop()
        response = await committing
        assert (response.outcome, response.cause) == (t.OUTCOME_ABORTED, t.ABORT_CAUSE_OPERATOR)
        assert response.reason == "the coordinator is stopping"
        for one in (accounts, ledger):
            assert one.ends == {(gtrid, f"{one.resource}.one"): t.BRANCH_STATE_ABORTED}


async def test_a_stop_rolls_back_what_is_active_and_says_so() -> None:
    accounts = Scripted("accounts")
    async with serving(accounts, stop_grace_s=30) as edge:
        gtrid = await begin(edge.unary(), accounts)
        await edge.server.stop()
        assert accounts.ends == {(gtrid, "accounts.one"): t.BRANCH_STATE_ABORTED}
        running = edge.server.requests.driver.find(gtrid)
        assert running is not None
        assert running.transaction.reason == "the coordinator is stopping"


async def test_a_stop_gives_up_after_its_grace_and_the_next_start_goes_on() -> None:
    accounts, ledger = Scripted("accounts"), Scripted("ledger")
    ledger.answers[p.ParticipantCommitRequest] = lambda request: None
    async with serving(accounts, ledger, stop_grace_s=0.05, apply_wait_s=60) as edge:
        ask = edge.framed()
        gtrid = await begin(ask, accounts, ledger)
        committing = asyncio.create_task(ask(c.CommitRequest(gtrid=gtrid)))
        await eventually(lambda: ledger.count(p.ParticipantCommitRequest) == 1)
        await edge.server.stop()
        with pytest.raises(CallFailed) as unknown:
            await committing
        assert unknown.value.maybe_executed
        del ledger.answers[p.ParticipantCommitRequest]
        again = Edge(edge.log, stop_grace_s=0)
        await again.start()
        await eventually(lambda: ledger.ends == {(gtrid, "ledger.one"): t.BRANCH_STATE_COMMITTED})
        await again.channel.close(None)
        await again.server.stop()


async def test_a_stop_that_gives_up_on_votes_leaves_nothing_running() -> None:
    """What fails while connections close must not start anything: no Rollback, no retry, no new connection."""
    accounts, ledger = Scripted("accounts"), Scripted("ledger")
    ledger.answers[p.PrepareRequest] = lambda request: None
    async with serving(accounts, ledger) as edge:
        ask = edge.framed()
        gtrid = await begin(ask, accounts, ledger)
        committing = asyncio.create_task(ask(c.CommitRequest(gtrid=gtrid)))
        await eventually(lambda: ledger.count(p.PrepareRequest) == 1)
        await edge.server.stop()
        with pytest.raises(CallFailed):
            await committing
        left = [task.get_coro() for task in asyncio.all_tasks()]
        assert [coroutine for coroutine in left if "Links" in str(coroutine)] == []


# -- retention -----------------------------------------------------------------------------------------------------


async def test_what_ended_longer_ago_than_the_retention_is_dropped() -> None:
    """citus 1614: finished log rows are never cleaned up."""
    log = MemoryLog(make_coordinator_id=SeededEntropy(1).coordinator_id, on_broken=lambda broken: None, unix_ms=unix_ms)
    identity = await log.open()
    gtrid = f"{identity.coordinator_id}-1-1-1"
    log.decide(DecisionRecord(gtrid, Decision.COMMIT, (), 1), lambda standing: None)
    log.end(EndRecord(gtrid, Outcome.COMMITTED, 2))
    await log.close()
    async with serving(log=log, sweep_interval_s=0.01) as edge:
        await eventually(lambda: log.lookup(gtrid) is None)
        assert (await edge.unary()(c.InquireRequest(gtrid=gtrid, branches=2))).standing == c.STANDING_UNKNOWN


# -- the process ---------------------------------------------------------------------------------------------------

SERVE = """
import asyncio, gc, sys
from coordinator.config import CoordinatorConfig
from coordinator.rpc.server import serve
settings = {"address": "127.0.0.1:0", "log": sys.argv[1], "stop_grace_s": 60}
code = asyncio.run(serve(CoordinatorConfig(**settings)))
print("garbage is looked for after", gc.get_threshold()[0], "objects")
sys.exit(code)
"""


@asynccontextmanager
async def process(log: Path, failpoint: str = "") -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A coordinator of its own, and its address, as it prints it."""
    serving_process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVE, str(log)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {ENVIRONMENT_VARIABLE: failpoint},
    )
    try:
        assert serving_process.stdout is not None
        line = (await asyncio.wait_for(serving_process.stdout.readline(), 30)).decode()
        assert line.startswith("handfast is ready at 127.0.0.1:"), line
        yield serving_process, line.split()[4]
    finally:
        if serving_process.returncode is None:
            serving_process.kill()
        await serving_process.communicate()


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_process_in_good_order(tmp_path: Path, told: signal.Signals) -> None:
    async with process(tmp_path / "log.db") as (running, _):
        running.send_signal(told)
        assert await asyncio.wait_for(running.wait(), 30) == 0


async def test_the_process_has_a_calm_garbage_collector(tmp_path: Path) -> None:
    async with process(tmp_path / "log.db") as (running, _):
        running.send_signal(signal.SIGTERM)
        assert running.stdout is not None
        said = (await asyncio.wait_for(running.stdout.read(), 30)).decode()
    assert said == f"garbage is looked for after {YOUNG_MAX} objects\n"


async def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    accounts = Scripted("accounts")
    accounts.answers[p.ParticipantRollbackRequest] = lambda request: None
    await accounts.start()
    async with (
        process(tmp_path / "log.db") as (running, address),
        grpc.aio.insecure_channel(address, options=channel_options()) as channel,
    ):
        stub = coordinator_pb2_grpc.CoordinatorStub(channel)
        await stub.Register(c.RegisterRequest(resource="accounts", instance="one", address=accounts.address))
        gtrid = (await stub.Begin(c.BeginRequest())).gtrid
        await stub.Enlist(c.EnlistRequest(gtrid=gtrid, resource="accounts", instance="one"))
        running.send_signal(signal.SIGTERM)
        await eventually(lambda: accounts.count(p.ParticipantRollbackRequest) == 1)
        assert running.returncode is None
        running.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.wait(), 30) == 128 + signal.SIGTERM
    await accounts.stop()


async def test_the_failpoint_in_the_log_s_thread_kills_the_process_before_the_force(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with process(path, failpoint="before-fsync") as (running, address):
        async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
            stub = coordinator_pb2_grpc.CoordinatorStub(channel)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Register(c.RegisterRequest(resource="accounts", instance="one", address="127.0.0.1:9"))
        assert await asyncio.wait_for(running.wait(), 30) == -signal.SIGKILL
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM participant").fetchone() == (0,)
    connection.close()


async def test_a_broken_log_ends_the_process_without_an_answer(tmp_path: Path) -> None:
    accounts, ledger = Scripted("accounts"), Scripted("ledger")
    path = tmp_path / "log.db"
    async with process(path) as (running, address):
        for one in (accounts, ledger):
            await one.start()
        async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
            stub = coordinator_pb2_grpc.CoordinatorStub(channel)
            for one in (accounts, ledger):
                await stub.Register(c.RegisterRequest(resource=one.resource, instance="one", address=one.address))
            _make_unwritable(path)
            request = c.ExecuteRequest(operations=[operation("accounts"), operation("ledger")])
            with pytest.raises(grpc.aio.AioRpcError) as lost:
                await stub.Execute(request)
            assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await asyncio.wait_for(running.wait(), 30) == EXIT_LOG_BROKEN
    assert accounts.ends == ledger.ends == {}
    for one in (accounts, ledger):
        await one.stop()


def _make_unwritable(path: Path) -> None:
    """Take the table away behind the log's back: the next force fails in a way that no log can explain."""
    with sqlite3.connect(path, timeout=10) as connection:
        connection.execute("ALTER TABLE decision RENAME TO decision_lost")
    connection.close()
