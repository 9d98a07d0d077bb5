"""Certificates that are replaced while the program runs."""

import logging
from pathlib import Path

import pytest

from handfast.pem_files import PemFiles
from tests.certificates import Pki


def files_of(pki: Pki) -> tuple[PemFiles, Path, Path]:
    held = pki.client("billing")
    return PemFiles(held.cert, held.key, held.ca), held.cert, held.key


def test_what_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    files, cert, key = files_of(Pki(tmp_path))
    pems = files.read()
    assert (pems.certificate, pems.key) == (cert.read_bytes(), key.read_bytes())
    assert files.reread() is None


def test_a_pair_that_was_replaced_is_read_once(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    files, cert, key = files_of(pki)
    files.read()
    fresh = pki.client("billing")
    fresh.cert.replace(cert)
    fresh.key.replace(key)
    pems = files.reread()
    assert pems is not None
    assert (pems.certificate, pems.key) == (cert.read_bytes(), key.read_bytes())
    assert files.reread() is None


def test_between_two_files_of_a_renewal_the_old_pair_stays_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pki = Pki(tmp_path)
    files, cert, key = files_of(pki)
    files.read()
    fresh = pki.client("billing")
    fresh.cert.replace(cert)
    with caplog.at_level(logging.WARNING):
        assert [files.reread(), files.reread()] == [None, None]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    fresh.key.replace(key)
    assert files.reread() is not None


def test_a_file_that_is_away_for_a_moment_costs_nothing(tmp_path: Path) -> None:
    files, cert, _ = files_of(Pki(tmp_path))
    files.read()
    text = cert.read_bytes()
    cert.unlink()
    assert files.reread() is None
    cert.write_bytes(text)
    assert files.reread() is not None


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    one, other = pki.client("one"), pki.client("other")
    with pytest.raises(OSError, match="can't be used"):
        PemFiles(one.cert, other.key, one.ca).read()


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    held = Pki(tmp_path).client("billing")
    key = load_pem_private_key(held.key.read_bytes(), None)
    held.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(OSError, match="can't be used"):
        PemFiles(held.cert, held.key, None).read()
