"""Who is at the other end of a connection, as its certificate says.

A certificate's holder is told from its names, in either of two forms:

    spiffe://<any trust domain>/participant/accounts     accounts.participant.handfast
    spiffe://<any trust domain>/client/billing           billing.client.handfast
    spiffe://<any trust domain>/admin/alice              alice.admin.handfast
    spiffe://<any trust domain>/coordinator              coordinator.handfast

A certificate may hold several, as that of a process with two resources does. One without any of these is a client by
the name that it has. Names are believed because the authority that signed them is trusted; whoever doesn't trust a
trust domain must not trust its authority.

This module imports the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TRUST_DOMAIN = "handfast"
"""That of the certificates which `handfast certs` makes."""

_URI = re.compile(r"spiffe://[^/]+/(?P<role>participant|client|admin|coordinator)(?:/(?P<name>[^/]+))?")
_DNS = re.compile(r"(?:(?P<name>[A-Za-z0-9_-]+)\.)?(?P<role>participant|client|admin|coordinator)\.handfast")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is.

    Args:
        name: what they are called in reports and in the audit trail, and by which a client owns its transactions.
        resources: the resources that they speak for.
        client: whether they may begin transactions.
        admin: whether they may do what an operator does.
        coordinator: whether they may tell participants what to do.
    """

    name: str
    resources: frozenset[str] = frozenset()
    client: bool = False
    admin: bool = False
    coordinator: bool = False


def identity_of_names(uris: Iterable[str], dns_names: Iterable[str]) -> Identity | None:
    """Read an identity from a certificate's names; None when it has none."""
    given = [*uris, *dns_names]
    held = [(name, found) for name in given if (found := _URI.fullmatch(name) or _DNS.fullmatch(name))]
    roles = {(found["role"], found["name"] or "") for _, found in held}
    if not roles:
        return Identity(given[0], client=True) if given else None
    kinds = {role for role, _ in roles}
    resources = frozenset(name for role, name in roles if role == "participant" and name)
    return Identity(held[0][0], resources, "client" in kinds, "admin" in kinds, "coordinator" in kinds)


def identity_of_peer(auth_context: Mapping[str, Iterable[bytes]]) -> Identity | None:
    """Read the identity of a peer whose certificate the TLS layer has checked.

    Args:
        auth_context: what ``grpc.ServicerContext.auth_context()`` gives.

    Returns:
        None when the peer showed no certificate, or one without names.
    """
    uris, dns_names = (_texts(auth_context.get(key, ())) for key in ("peer_uri", "peer_dns"))
    return identity_of_names(uris, dns_names)


def _texts(values: Iterable[bytes]) -> list[str]:
    return [value.decode("utf-8", "replace") for value in values]
