"""`handfast certs init`: certificates that hold the right names, keys that nobody else reads, nothing written over."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from handfast.identity import Identity, identity_of_names
from handfast.pem_files import PemFiles
from tests.unit.cli.conftest import RunCommand

ALL = ("--participant", "accounts=accounts.internal,10.0.0.5", "--client", "billing", "--admin", "alice")


def names(certificate: Path) -> tuple[list[str], list[str]]:
    """The URI and DNS names of a certificate."""
    held = x509.load_pem_x509_certificate(certificate.read_bytes())
    found = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.UniformResourceIdentifier), found.get_values_for_type(x509.DNSName)


async def test_each_gets_a_certificate_that_says_who_it_is(handfast: RunCommand, tmp_path: Path) -> None:
    ran = await handfast("certs", "init", "tls", "--host", "tm.internal", *ALL)
    assert (ran.code, ran.err) == (0, "")
    folder = tmp_path / "tls"
    assert names(folder / "coordinator.crt") == (
        ["spiffe://handfast/coordinator"],
        ["coordinator.handfast", "localhost", "tm.internal"],
    )
    assert names(folder / "participant-accounts.crt") == (
        ["spiffe://handfast/participant/accounts"],
        ["accounts.participant.handfast", "accounts.internal"],
    )
    assert names(folder / "client-billing.crt") == (["spiffe://handfast/client/billing"], [])
    assert names(folder / "admin-alice.crt") == (["spiffe://handfast/admin/alice"], [])


async def test_the_certificates_are_read_back_as_the_identities_they_were_made_for(
    handfast: RunCommand, tmp_path: Path
) -> None:
    await handfast("certs", "init", "tls", *ALL)
    found = {path.stem: identity_of_names(*names(path)) for path in (tmp_path / "tls").glob("*-*.crt")}
    assert found == {
        "participant-accounts": Identity("spiffe://handfast/participant/accounts", frozenset({"accounts"})),
        "client-billing": Identity("spiffe://handfast/client/billing", client=True),
        "admin-alice": Identity("spiffe://handfast/admin/alice", admin=True),
    }


async def test_every_pair_can_be_used_and_is_signed_by_the_authority(handfast: RunCommand, tmp_path: Path) -> None:
    await handfast("certs", "init", "tls", *ALL)
    ca = tmp_path / "tls" / "ca.crt"
    authority = x509.load_pem_x509_certificate(ca.read_bytes())
    issued = [path for path in (tmp_path / "tls").glob("*.crt") if path != ca]
    assert len(issued) == 4
    for path in issued:
        assert PemFiles(path, path.with_suffix(".key"), ca).read().key
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.verify_directly_issued_by(authority)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert {*usage} == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


async def test_keys_are_for_their_owner_alone(handfast: RunCommand, tmp_path: Path) -> None:
    await handfast("certs", "init", "tls", *ALL)
    keys = [*(tmp_path / "tls").glob("*.key")]
    assert len(keys) == 5
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700


async def test_a_second_run_adds_what_is_missing_and_touches_nothing_else(handfast: RunCommand, tmp_path: Path) -> None:
    await handfast("certs", "init", "tls", *ALL)
    before = {path: path.read_bytes() for path in (tmp_path / "tls").iterdir()}
    ran = await handfast("certs", "init", "tls", *ALL, "--client", "reports", "--json")
    assert {path: path.read_bytes() for path in before} == before
    told = json.loads(ran.out)
    assert [one["name"] for one in told["certificates"] if one["new"]] == ["reports"]
    fresh = x509.load_pem_x509_certificate((tmp_path / "tls" / "client-reports.crt").read_bytes())
    assert told["authority"] == "tls/ca.crt"
    fresh.verify_directly_issued_by(x509.load_pem_x509_certificate(before[tmp_path / "tls" / "ca.crt"]))


async def test_half_a_pair_is_refused_rather_than_completed(handfast: RunCommand, tmp_path: Path) -> None:
    await handfast("certs", "init", "tls")
    (tmp_path / "tls" / "ca.key").unlink()
    ran = await handfast("certs", "init", "tls", "--client", "billing")
    assert ran.code == 1
    assert "ca.key is missing beside its other half" in ran.err
    assert not (tmp_path / "tls" / "client-billing.crt").exists()


async def test_an_authority_with_another_s_key_is_refused(handfast: RunCommand, tmp_path: Path) -> None:
    await handfast("certs", "init", "tls")
    (tmp_path / "tls" / "ca.key").write_bytes((tmp_path / "tls" / "admin-admin.key").read_bytes())
    ran = await handfast("certs", "init", "tls", "--client", "billing")
    assert ran.code == 1
    assert "CERTIFICATES_UNUSABLE" in ran.err


@pytest.mark.parametrize(
    "options",
    [
        ("--participant", "Accounts!"),
        ("--client", "../../etc/passwd"),
        ("--admin", "a/b"),
        ("--host", "tm internal"),
        ("--participant", "accounts=bad host"),
        ("--days", "0"),
    ],
)
async def test_names_that_are_none_are_refused_before_anything_is_written(
    handfast: RunCommand, tmp_path: Path, options: tuple[str, str]
) -> None:
    ran = await handfast("certs", "init", "tls", *options)
    assert (ran.code, ran.out) == (2, "")
    assert not (tmp_path / "tls").exists()


async def test_what_is_printed_can_be_pasted(handfast: RunCommand) -> None:
    ran = await handfast("certs", "init", "tls", *ALL)
    assert "handfast serve --tls-cert tls/coordinator.crt --tls-key tls/coordinator.key" in ran.out
    assert 'TlsConfig("tls/ca.crt", "tls/client-billing.crt", "tls/client-billing.key")' in ran.out
    assert "handfast status --tls-ca tls/ca.crt --client-cert tls/admin-alice.crt" in ran.out
