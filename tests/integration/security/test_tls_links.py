"""TLS on every link: to the coordinator, to participants, with names checked, and renewed without a restart."""

import asyncio
import socket
import ssl
import warnings
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

import handfast
from coordinator.config import CoordinatorConfig
from coordinator.rpc.listening import warn_of_plain_text
from handfast.catalog import HandfastFault
from handfast.frames import CallFailed, server_options
from handfast.tls import open_channel
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from participant import Participant, ParticipantOptions
from participant.testing import MemoryResource
from tests.certificates import Certified, Pki
from tests.integration.coordinator.edge import begin, operation
from tests.integration.coordinator.participants import Scripted
from tests.integration.security.secured import Secured, pki_in, secured
from tests.waiting import eventually


async def test_a_transaction_commits_with_tls_on_every_link(tmp_path: Path) -> None:
    pki = pki_in(tmp_path)
    accounts, ledger = (Secured(name, pki.participant(name)) for name in ("accounts", "ledger"))
    async with secured(pki, accounts, ledger) as edge:
        for one in (accounts, ledger):
            await edge.as_(one.held).register(one)
        async with handfast.connect(edge.server.address, tls=pki.client("billing").client()) as tm:
            result = await tm.execute([("accounts", "work", b""), ("ledger", "work", b"")])
    assert result.outcome is handfast.Outcome.COMMITTED
    assert accounts.ends == {(result.gtrid, "accounts.one"): t.BRANCH_STATE_COMMITTED}


async def test_two_resources_of_one_process_share_an_address_and_prove_both_names(tmp_path: Path) -> None:
    pki = pki_in(tmp_path)
    both = Secured("accounts", pki.participant("accounts", "ledger"))
    async with secured(pki, both) as edge:
        process = edge.as_(both.held)
        await process.register(both)
        await process.unary()(c.RegisterRequest(resource="ledger", instance="one", address=both.address, kind="x"))
        async with handfast.connect(edge.server.address, tls=pki.client("billing").client()) as tm:
            result = await tm.execute([("accounts", "work", b""), ("ledger", "work", b"")])
    assert result.outcome is handfast.Outcome.COMMITTED


@pytest.mark.parametrize("whose", ["another resource's", "a client's", "another authority's"])
async def test_an_address_that_does_not_prove_the_resource_gets_nothing(tmp_path: Path, whose: str) -> None:
    pki = pki_in(tmp_path)
    held = {
        "another resource's": pki.participant("ledger"),
        "a client's": pki.client("billing"),
        "another authority's": Pki(tmp_path / "others").participant("accounts"),
    }[whose]
    liar = Secured("accounts", held)
    async with secured(pki, liar) as edge:
        # A false address in the settings, for nobody but accounts itself can register one.
        await edge.as_(pki.participant("accounts")).register(liar)
        answer = await edge.unary()(c.ExecuteRequest(operations=[operation("accounts")], timeout_ms=2000))
        assert (answer.outcome, answer.branches[0].state) == (t.OUTCOME_ABORTED, t.BRANCH_STATE_ABORTED)
        assert liar.asked == []


async def test_the_name_that_a_participant_must_prove_can_be_one_of_your_own_pki(tmp_path: Path) -> None:
    pki = pki_in(tmp_path)
    accounts = Secured("accounts", pki.issue("accounts.svc.example"))
    async with secured(pki, accounts, participant_name="{resource}.svc.example") as edge:
        await edge.as_(pki.participant("accounts")).register(accounts)
        answer = await edge.unary()(c.ExecuteRequest(operations=[operation("accounts")]))
        assert answer.outcome == t.OUTCOME_COMMITTED


async def test_with_participant_name_address_the_host_is_what_counts(tmp_path: Path) -> None:
    pki = pki_in(tmp_path)
    accounts = Secured("accounts", pki.issue())
    async with secured(pki, accounts, participant_name="address") as edge:
        await edge.as_(pki.participant("accounts")).register(accounts)
        answer = await edge.unary()(c.ExecuteRequest(operations=[operation("accounts")]))
        assert answer.outcome == t.OUTCOME_COMMITTED


async def test_the_sdk_speaks_tls_both_ways(tmp_path: Path) -> None:
    pki = pki_in(tmp_path)
    held = pki.participant("stock")
    async with secured(pki) as edge:
        server = grpc.aio.server(options=server_options())
        port = server.add_secure_port("127.0.0.1:0", held.server().credentials())
        stock: Participant[Any] = Participant(
            "stock",
            MemoryResource(),
            coordinator=edge.server.address,
            address=f"127.0.0.1:{port}",
            credentials=held.client("coordinator.handfast"),
            options=ParticipantOptions(retry_first_s=0.01),
        )

        @stock.operation("take")
        async def take(connection: Any, payload: bytes) -> bytes:
            return payload

        stock.add_to_server(server)
        await server.start()
        async with stock, handfast.connect(edge.server.address, tls=pki.client("shop").client()) as tm:
            await eventually(lambda: stock.registered)
            result = await tm.execute([("stock", "take", b"3 apples")])
        await server.stop(None)
    assert result.results == (b"3 apples",)


# -- the least version ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "served"),
    [("TLSv1", False), ("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)],
)
async def test_the_least_version_is_tls_1_2(tmp_path: Path, version: str, served: bool) -> None:
    pki = pki_in(tmp_path)
    async with secured(pki) as edge:
        assert await asyncio.to_thread(_shakes_hands, edge.server.address, pki.client("old"), version) is served


def _shakes_hands(address: str, held: Certified, version: str) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(held.ca)
    context.load_cert_chain(held.cert, held.key)
    context.set_ciphers("ALL:@SECLEVEL=0")  # this client itself would refuse the old versions
    context.set_alpn_protocols(["h2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        try:
            with context.wrap_socket(connection, server_hostname="localhost") as spoken:
                return spoken.version() == version.replace("_", ".")
        except OSError:
            return False


# -- renewal -------------------------------------------------------------------------------------------------------


async def test_a_server_shows_its_renewed_certificate_without_a_restart(tmp_path: Path) -> None:
    old, new = pki_in(tmp_path), Pki(tmp_path / "new")
    async with secured(old) as edge:
        assert await _begins(edge.as_(old.client("billing")))
        assert not await _begins(edge.as_(new.client("billing")))
        edge.held.replace_by(new.coordinator())
        assert await _begins(edge.as_(new.client("billing")))
        assert not await _begins(edge.as_(old.client("billing")))


async def _begins(edge: Any) -> bool:
    try:
        return bool((await edge.framed()(c.BeginRequest())).gtrid)
    except CallFailed:
        return False


async def test_a_client_uses_renewed_certificates_when_it_connects_again(tmp_path: Path) -> None:
    old, new = pki_in(tmp_path), Pki(tmp_path / "new")
    held = old.client("billing")
    server = Secured("accounts", old.participant("accounts"))
    await server.start()
    channel = open_channel(server.address, held.client("accounts.participant.handfast"))
    await asyncio.wait_for(channel.channel_ready(), 10)
    await server.stop()
    server.held.replace_by(new.participant("accounts"))
    await server.start()
    held.replace_by(new.client("billing"))
    await asyncio.wait_for(channel.channel_ready(), 10)
    await channel.close(None)
    await server.stop()


async def test_the_coordinator_reaches_a_participant_whose_authority_was_replaced(tmp_path: Path) -> None:
    old, new = pki_in(tmp_path), Pki(tmp_path / "new")
    accounts = Secured("accounts", old.participant("accounts"))
    async with secured(old, accounts) as edge:
        await edge.as_(accounts.held).register(accounts)
        gtrid = await begin(edge.as_(old.client("billing")).framed())
        assert gtrid
        await accounts.stop()
        accounts.held.replace_by(new.participant("accounts"))
        edge.held.replace_by(new.coordinator())
        await accounts.start()
        (known,) = edge.server.requests.directory
        await eventually(lambda: edge.server.links.reachable(known))
        request = p.RecoverRequest(resource="accounts", coordinator_id="x")
        assert isinstance(await edge.server.links.ask(known, request, 5), p.RecoverResponse)


# -- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "settings"),
    [
        ("participant_key", {"participant_cert": "cert"}),
        ("participant_cert", {"participant_key": "key"}),
        ("participant_cert", {"participant_cert": "cert", "participant_key": "key"}),
        ("participant_ca", {"participant_ca": "absent"}),
    ],
)
def test_tls_to_participants_is_whole_or_refused(tmp_path: Path, setting: str, settings: dict[str, str]) -> None:
    held = pki_in(tmp_path).coordinator()
    paths = {"cert": held.cert, "key": held.key, "absent": tmp_path / "absent"}
    with pytest.raises(HandfastFault, match=f"The setting {setting} "):
        CoordinatorConfig(**{name: paths[value] for name, value in settings.items()})


@pytest.mark.parametrize("name", ["accounts", "{resource}{resource}!", "{}", "{resource.__class__}"])
def test_a_name_that_does_not_tell_resources_apart_is_refused(name: str) -> None:
    with pytest.raises(HandfastFault, match="participant_name"):
        CoordinatorConfig(participant_name=name)


async def test_an_authority_that_can_not_be_read_is_refused_at_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "ca.crt"
    broken.write_text("not a certificate")
    with pytest.raises(HandfastFault, match="participant_ca"):
        async with secured(pki_in(tmp_path), participant_ca=broken):
            pass


def test_plain_text_that_others_reach_is_said_at_each_start(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_plain_text(CoordinatorConfig(address="127.0.0.1:0"))
    assert caplog.records == []
    warn_of_plain_text(CoordinatorConfig(address="0.0.0.0:7400", insecure=True))
    assert "INSECURE: 0.0.0.0:7400" in caplog.text


async def test_plain_participants_of_a_tls_coordinator_are_said_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accounts = Scripted("accounts")
    pki = pki_in(tmp_path)
    async with secured(pki, accounts, participant_ca=None) as edge:
        await edge.as_(pki.participant("accounts")).register(accounts)
        answer = await edge.unary()(c.ExecuteRequest(operations=[operation("accounts")]))
        assert answer.outcome == t.OUTCOME_COMMITTED
    assert "without TLS" in caplog.text
