"""Over real TLS: who may do what, and that whoever is refused leaves an audit line and changes nothing."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

import handfast
from handfast.frames import CallFailed, failure_of_rpc, server_options
from handfast.tls import open_channel
from handfast.v1 import admin_pb2 as a
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import participant_pb2_grpc
from handfast.v1 import types_pb2 as t
from handfast.xid import base36
from participant import Participant, ParticipantOptions
from participant.testing import MemoryResource
from tests.certificates import Certified, Pki
from tests.integration.coordinator.edge import Ask, Edge, begin, enlist, operation, refusal
from tests.integration.security.secured import Secured, SecuredEdge, pki_in, secured
from tests.waiting import eventually


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return pki_in(tmp_path)


@pytest.fixture
def accounts(pki: Pki) -> Secured:
    return Secured("accounts", pki.participant("accounts"))


def denials(edge: SecuredEdge) -> list[tuple[str, str]]:
    """Who was refused what, the newest first."""
    return [(entry.who.rsplit("/", 1)[-1], entry.action) for entry in edge.server.trail.entries(100) if entry.error]


async def denied(ask: Ask, request: Message) -> CallFailed:
    """Ask what must be refused for want of a right."""
    refused = await refusal(ask, request)
    assert (refused.code, refused.grpc_status) == ("PERMISSION_DENIED", grpc.StatusCode.PERMISSION_DENIED.value[0])
    return refused


# -- participants --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["framed", "unary"])
async def test_a_participant_speaks_only_for_its_own_resource(pki: Pki, accounts: Secured, way: str) -> None:
    async with secured(pki, accounts) as edge:
        await edge.as_(accounts.held).register(accounts)
        gtrid = await begin(edge.as_(pki.client("billing")).unary())
        ask = getattr(edge.as_(pki.participant("ledger")), way)()
        for request in (
            c.RegisterRequest(resource="accounts", instance="two", address="127.0.0.1:9", kind="x"),
            c.EnlistRequest(gtrid=gtrid, resource="accounts", instance="one"),
            c.InquireRequest(gtrid=gtrid, bqual="accounts.one"),
        ):
            await denied(ask, request)
        assert [who for who, _ in denials(edge)] == ["ledger"] * 3
        assert [known.instance for known in edge.server.requests.directory] == ["one"]
        running = edge.server.requests.driver.find(gtrid)
        assert running is not None
        assert running.transaction.branches == {}


async def test_a_wrong_certificate_gets_no_prepare_and_the_right_one_does(pki: Pki, accounts: Secured) -> None:
    """The liar says that it is accounts, with ledger's certificate, at the address of its own server."""
    liar = Secured("accounts", pki.participant("ledger"), instance="liar")
    async with secured(pki, accounts, liar) as edge:
        await edge.as_(accounts.held).register(accounts)
        await denied(
            edge.as_(liar.held).framed(),
            c.RegisterRequest(resource="accounts", instance="liar", address=liar.address, kind="x"),
        )
        for _ in range(4):
            answer = await edge.unary()(c.ExecuteRequest(operations=[operation("accounts")]))
            assert answer.outcome == t.OUTCOME_COMMITTED
        assert liar.asked == []
        assert accounts.count(p.CommitOnePhaseRequest) == 4


async def test_a_participant_asks_and_enlists_for_itself(pki: Pki, accounts: Secured) -> None:
    async with secured(pki, accounts) as edge:
        process = edge.as_(accounts.held)
        await process.register(accounts)
        gtrid = await begin(edge.as_(pki.client("billing")).framed())
        await enlist(process.framed(), gtrid, accounts)
        standing = await process.framed()(c.InquireRequest(gtrid=gtrid, bqual="accounts.one"))
        assert standing.standing == c.STANDING_UNDECIDED


@pytest.mark.parametrize(
    "request_",
    [c.BeginRequest(), c.BeginRequest(block_size=10), c.ExecuteRequest(operations=[operation("accounts")])],
    ids=["Begin", "a block", "Execute"],
)
async def test_a_participant_is_no_client(pki: Pki, accounts: Secured, request_: Message) -> None:
    async with secured(pki) as edge:
        await denied(edge.as_(accounts.held).framed(), request_)


async def test_a_participant_takes_orders_from_a_coordinator_alone(pki: Pki) -> None:
    """An application's certificate opens the service on the same port; it must not end the service's branches."""
    async with serving_stock(pki) as (address, _):
        for held in (pki.client("billing"), pki.participant("ledger"), pki.admin("alice"), pki.issue()):
            async with participant_stub(address, held) as stub:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.Commit(p.ParticipantCommitRequest(gtrid="k3v9q2xw-1-1-1", bqual="stock.one"))
                assert failure_of_rpc(refused.value, "").code == "CALLER_NOT_COORDINATOR"
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.Connect(iter([])).read()
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        async with participant_stub(address, pki.coordinator()) as stub:
            answer = await stub.Recover(p.RecoverRequest(resource="stock", coordinator_id="k3v9q2xw"))
            assert list(answer.branches) == []


async def test_a_coordinator_with_a_name_of_your_own_pki_can_be_named(pki: Pki) -> None:
    options = ParticipantOptions(coordinator_names=("tm.prod.example",))
    async with serving_stock(pki, options) as (address, _):
        async with participant_stub(address, pki.issue("tm.prod.example")) as stub:
            assert await stub.Recover(p.RecoverRequest(resource="stock", coordinator_id="k3v9q2xw"))


@asynccontextmanager
async def serving_stock(
    pki: Pki, options: ParticipantOptions | None = None
) -> AsyncIterator[tuple[str, Participant[Any]]]:
    """A real participant over TLS, without a coordinator."""
    server = grpc.aio.server(options=server_options())
    port = server.add_secure_port("127.0.0.1:0", pki.participant("stock").server().credentials())
    address = f"127.0.0.1:{port}"
    stock: Participant[Any] = Participant(
        "stock", MemoryResource(), coordinator="127.0.0.1:9", address=address, options=options
    )
    stock.add_to_server(server)
    await server.start()
    async with stock:
        yield address, stock
    await server.stop(None)


@asynccontextmanager
async def participant_stub(address: str, held: Certified) -> AsyncIterator[Any]:
    """A way to call a participant as somebody."""
    channel = open_channel(address, held.client("stock.participant.handfast"))
    yield participant_pb2_grpc.ParticipantStub(channel)
    await channel.close(None)


# -- clients -------------------------------------------------------------------------------------------------------


def ending(gtrid: str) -> list[Message]:
    """What only the owner may ask."""
    return [
        c.CommitRequest(gtrid=gtrid),
        c.RollbackRequest(gtrid=gtrid),
        c.InquireRequest(gtrid=gtrid),
        c.ExecuteRequest(gtrid=gtrid, operations=[operation("accounts")]),
    ]


async def test_only_the_client_that_began_a_transaction_may_end_it(pki: Pki, accounts: Secured) -> None:
    async with secured(pki, accounts) as edge:
        await edge.as_(accounts.held).register(accounts)
        owner, other = (edge.as_(pki.client(name)).framed() for name in ("billing", "other"))
        gtrid = await begin(owner)
        await enlist(edge.as_(accounts.held).framed(), gtrid, accounts)
        for request in ending(gtrid):
            await denied(other, request)
        assert (await owner(c.CommitRequest(gtrid=gtrid))).outcome == t.OUTCOME_COMMITTED
        assert {who for who, _ in denials(edge)} == {"other"}


async def test_a_name_that_was_drawn_and_not_used_is_its_drawer_s(pki: Pki, accounts: Secured) -> None:
    """To inquire about such a name uses it up: another client could abort what has not begun."""
    async with secured(pki, accounts) as edge:
        await edge.as_(accounts.held).register(accounts)
        owner, other = (edge.as_(pki.client(name)).framed() for name in ("billing", "other"))
        block = (await owner(c.BeginRequest(block_size=10))).block
        gtrid = block.prefix + base36(3)
        for request in ending(gtrid):
            await denied(other, request)
        await enlist(edge.as_(accounts.held).framed(), gtrid, accounts)
        for request in ending(gtrid):
            await denied(other, request)
        assert (await owner(c.CommitRequest(gtrid=gtrid))).outcome == t.OUTCOME_COMMITTED


async def test_the_owner_is_on_record_after_a_restart(pki: Pki, accounts: Secured) -> None:
    ledger = Secured("ledger", pki.participant("ledger"))
    async with secured(pki, accounts, ledger) as edge:
        for one in (accounts, ledger):
            await edge.as_(one.held).register(one)
        owner = edge.as_(pki.client("billing")).framed()
        operations = [operation("accounts"), operation("ledger")]
        gtrid = (await owner(c.ExecuteRequest(operations=operations))).gtrid
        edge.server.requests.driver.finished.clear()  # as after a restart: the log alone knows it
        await denied(edge.as_(pki.client("other")).framed(), c.InquireRequest(gtrid=gtrid))
        assert (await owner(c.InquireRequest(gtrid=gtrid))).standing == c.STANDING_COMMIT


async def test_the_name_a_client_gives_itself_counts_for_nothing(pki: Pki) -> None:
    async with secured(pki) as edge:
        gtrid = (await edge.as_(pki.client("billing")).unary()(c.BeginRequest(client="alice"))).gtrid
        impostor = edge.as_(pki.client("other")).unary()
        await impostor(c.BeginRequest(client="spiffe://handfast/client/billing"))
        await denied(impostor, c.RollbackRequest(gtrid=gtrid))
        shown = (await edge.admin.GetTransaction(a.GetTransactionRequest(gtrid=gtrid))).transaction
        assert shown.client == "spiffe://handfast/client/billing"


async def test_an_admin_may_end_anybody_s_transaction(pki: Pki) -> None:
    async with secured(pki) as edge:
        gtrid = await begin(edge.as_(pki.client("billing")).framed())
        answer = await edge.framed()(c.RollbackRequest(gtrid=gtrid))
        assert answer.outcome == t.OUTCOME_ABORTED


async def test_an_admin_speaks_for_no_resource(pki: Pki, accounts: Secured) -> None:
    async with secured(pki, accounts) as edge:
        await denied(
            edge.framed(), c.RegisterRequest(resource="accounts", instance="one", address=accounts.address, kind="x")
        )


async def test_the_client_library_says_that_it_was_refused(pki: Pki) -> None:
    async with secured(pki) as edge:
        gtrid = await begin(edge.as_(pki.client("billing")).framed())
        async with handfast.connect(edge.server.address, tls=pki.client("other").client()) as tm:
            with pytest.raises(handfast.Refused, match="may not roll back another's transaction"):
                await tm.rollback(gtrid)


# -- operators -----------------------------------------------------------------------------------------------------

ADMIN_CALLS = {
    "GetStatus": a.GetStatusRequest(),
    "ListTransactions": a.ListTransactionsRequest(),
    "GetTransaction": a.GetTransactionRequest(gtrid="k3v9q2xw-1-1-1"),
    "ListInDoubt": a.ListInDoubtRequest(),
    "ListParticipants": a.ListParticipantsRequest(),
    "Resolve": a.ResolveRequest(gtrid="k3v9q2xw-1-1-1", action=a.RESOLVE_ACTION_COMMIT, heuristic=True),
    "Audit": a.AuditRequest(),
    "Diagnose": a.DiagnoseRequest(),
    "ListOperations": a.ListOperationsRequest(),
}


WATCH = a.WatchTransactionsRequest()


def test_every_call_of_the_admin_service_is_tried_here() -> None:
    methods = {method.name for method in a.DESCRIPTOR.services_by_name["Admin"].methods}
    assert methods - ADMIN_CALLS.keys() == {"WatchTransactions"}


@pytest.mark.parametrize("call", [*ADMIN_CALLS, "WatchTransactions"])
async def test_the_admin_service_is_for_admins(pki: Pki, call: str) -> None:
    async with secured(pki) as edge:
        for held in (pki.client("billing"), pki.participant("accounts"), pki.coordinator()):
            admin = edge.as_(held).admin
            watching = call == "WatchTransactions"
            asked = admin.WatchTransactions(WATCH).read() if watching else getattr(admin, call)(ADMIN_CALLS[call])
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await asked
            assert failure_of_rpc(refused.value, "").code == "PERMISSION_DENIED"
        assert len(denials(edge)) == 3


async def test_an_admin_of_your_own_pki_can_be_named(pki: Pki) -> None:
    async with secured(pki, admins=["alice.ops.example"]) as edge:
        named = edge.as_(pki.issue("alice.ops.example"))
        assert (await named.admin.GetStatus(a.GetStatusRequest())).coordinator_id


async def test_a_resource_of_your_own_pki_is_told_by_the_name_that_participants_prove(pki: Pki) -> None:
    accounts = Secured("accounts", pki.issue("accounts.svc.example"))
    async with secured(pki, accounts, participant_name="{resource}.svc.example") as edge:
        await edge.as_(accounts.held).register(accounts)
        await denied(
            edge.as_(accounts.held).unary(),
            c.RegisterRequest(resource="ledger", instance="one", address="127.0.0.1:9", kind="x"),
        )


async def test_an_intervention_stands_in_the_trail_with_who_why_before_and_after(pki: Pki) -> None:
    async with secured(pki) as edge:
        gtrid = await begin(edge.as_(pki.client("billing")).framed())
        request = a.ResolveRequest(
            gtrid=gtrid, action=a.RESOLVE_ACTION_ROLLBACK, operator="root@host", reason="it hangs"
        )
        await edge.admin.Resolve(request)
        request.action = a.RESOLVE_ACTION_COMMIT
        with pytest.raises(grpc.aio.AioRpcError):
            await edge.admin.Resolve(request)
        refused, done = edge.server.trail.entries(10)
        assert (done.action, done.gtrid, done.error) == ("resolve --rollback", gtrid, "")
        assert done.who == "spiffe://handfast/admin/alice (root@host)"
        assert (done.reason, done.before, done.after) == ("it hangs", "active", "aborted")
        assert (refused.action, refused.error) == ("resolve --commit", "RESOLUTION_IMPOSSIBLE")
        listed = (await edge.admin.ListOperations(a.ListOperationsRequest(gtrid=gtrid))).operations
        assert [(one.action, one.error) for one in listed] == [(one.action, one.error) for one in (refused, done)]
        only_refused = await edge.admin.ListOperations(a.ListOperationsRequest(refused_only=True, limit=5))
        assert [one.error for one in only_refused.operations] == ["RESOLUTION_IMPOSSIBLE"]
        (logged,) = edge.log.resolutions(gtrid)
        assert logged.operator == "spiffe://handfast/admin/alice (root@host)"


# -- tokens --------------------------------------------------------------------------------------------------------


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@asynccontextmanager
async def serving_with_tokens(tmp_path: Path, **tokens: str) -> AsyncIterator[tuple[Edge, Path]]:
    """A coordinator without TLS that knows its callers by tokens: token = what its bearer is."""
    path = tmp_path / "tokens"
    path.write_text("# who\n" + "".join(f"{digest(token)} {roles}\n" for token, roles in tokens.items()))
    edge = Edge(None, tokens_file=path, stop_grace_s=0)
    await edge.start()
    yield edge, path
    await edge.channel.close(None)
    await edge.server.stop()


def token_file(tmp_path: Path, token: str) -> Path:
    path = tmp_path / f"{token}.token"
    path.write_text(token + "\n")
    return path


async def test_a_token_says_who_asks(tmp_path: Path) -> None:
    async with serving_with_tokens(tmp_path, b1="client/billing", b2="client/other") as (edge, _):
        address = edge.server.address
        async with handfast.connect(address, token_file=token_file(tmp_path, "b1")) as owner:
            async with owner.transaction() as txn:
                async with handfast.connect(address, token_file=token_file(tmp_path, "b2")) as other:
                    with pytest.raises(handfast.Refused, match="another's"):
                        await other.rollback(txn.gtrid)


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer nonsense"),), (("authorization", "Basic b1"),)])
async def test_without_a_known_token_nothing_is_answered(tmp_path: Path, metadata: Any) -> None:
    async with serving_with_tokens(tmp_path, b1="client/billing admin/b1") as (edge, _):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await edge.admin.GetStatus(a.GetStatusRequest(), metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert failure_of_rpc(refused.value, "").code == "IDENTITY_MISSING"
        assert edge.server.trail.entries(1)[0].error == "IDENTITY_MISSING"
        answer = await edge.admin.GetStatus(a.GetStatusRequest(), metadata=(("authorization", "Bearer b1"),))
        assert answer.coordinator_id


async def test_a_participant_registers_by_token(tmp_path: Path) -> None:
    async with serving_with_tokens(tmp_path, p1="participant/stock") as (edge, _):
        stock: Participant[Any] = Participant(
            "stock",
            MemoryResource(),
            coordinator=edge.server.address,
            address="127.0.0.1:9",
            token_file=token_file(tmp_path, "p1"),
        )
        async with stock:
            await eventually(lambda: stock.registered)


async def test_a_token_that_is_taken_away_opens_nothing_any_more(tmp_path: Path) -> None:
    async with serving_with_tokens(tmp_path, a1="admin/alice", a2="admin/bob") as (edge, path):
        alice = (("authorization", "Bearer a1"),)
        assert (await edge.admin.GetStatus(a.GetStatusRequest(), metadata=alice)).coordinator_id
        path.write_text(f"{digest('a2')} admin/bob\n")
        with pytest.raises(grpc.aio.AioRpcError):
            await edge.admin.GetStatus(a.GetStatusRequest(), metadata=alice)
        path.write_text("oops\n")
        bob = (("authorization", "Bearer a2"),)
        answer = await edge.admin.GetStatus(a.GetStatusRequest(), metadata=bob)
        assert answer.coordinator_id  # a slip of the pen locks nobody out


async def test_health_is_told_to_anybody(pki: Pki) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with secured(pki) as edge:
        health: Any = health_pb2_grpc.HealthStub(edge.as_(pki.issue()).channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
