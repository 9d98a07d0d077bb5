"""A private certificate authority, as small as one can be.

One authority signs a certificate for each process and person. Its key signs whoever holds it into anything, so it
belongs where no service runs; what the others need of it is only its certificate.

Who a certificate's holder is to Handfast stands in its names, twice: as a URI in SPIFFE's form, and as a DNS name,
because the name of a TLS server is checked by gRPC, which checks DNS names only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BACKDATED = timedelta(minutes=5)
"""A certificate is valid from a little before now, for machines whose clocks are behind."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs certificates.

    Args:
        certificate: its own.
        key: the key to it.
    """

    def __init__(self, certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, name: str, now: datetime, lifetime: timedelta) -> Authority:
        """Make a new one.

        Args:
            name: what it is called in its own certificate.
            now: the time, with its zone.
            lifetime: for how long it is valid.
        """
        key = generate_private_key(SECP256R1())
        builder = _builder(name, now, lifetime).issuer_name(_name(name)).public_key(key.public_key())
        usage = _usage(signs_certificates=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, issued: Issued) -> Authority:
        """Take up one that was made before.

        Raises:
            ValueError: certificate or key can't be read, or they don't belong together.
        """
        certificate = x509.load_pem_x509_certificate(issued.certificate)
        key = load_pem_private_key(issued.key, password=None)
        if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("its certificate and its key don't belong together")
        return cls(certificate, key)

    @property
    def pems(self) -> Issued:
        """Its own certificate and key."""
        return Issued(self._certificate.public_bytes(Encoding.PEM), _key_pem(self._key))

    def issue(self, name: str, uris: Iterable[str], hosts: Iterable[str], now: datetime, lifetime: timedelta) -> Issued:
        """Sign a new certificate with a new key, for both ends of a connection.

        Args:
            name: the common name, for people.
            uris: URI names.
            hosts: DNS names and IP addresses.
            now: the time, with its zone.
            lifetime: for how long it is valid; no longer than the authority.
        """
        key = generate_private_key(SECP256R1())
        lifetime = min(lifetime, self._certificate.not_valid_after_utc - now)
        names = [*map(x509.UniformResourceIdentifier, uris), *map(_host, hosts)]
        both_ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        own = self._key.public_key()
        builder = (
            _builder(name, now, lifetime)
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both_ends), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        return Issued(certificate.public_bytes(Encoding.PEM), _key_pem(key))


def _builder(name: str, now: datetime, lifetime: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
