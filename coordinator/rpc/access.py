"""Who is asking, and who is turned away.

Identity is found out once for each stream and each unary call, from the certificate that the TLS layer has checked or
from a bearer token. What an identity may do is decided where the request is understood: in ``guarded`` for what
applications and participants ask, in ``admin_service`` for operators.

Where the coordinator asks nobody who they are (no ``tls_client_ca`` and no ``tokens_file``: the loopback default),
there are no identities, and everybody may do everything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, NoReturn

import grpc.aio

from coordinator.rpc.trail import Trail
from coordinator.tokens import TokenFile
from handfast.catalog import HandfastFault
from handfast.identity import Identity, identity_of_peer

Context = grpc.aio.ServicerContext[Any, Any]

AUTHORIZATION = "authorization"
_BEARER = re.compile(r"[Bb]earer +(?P<token>\S+)")


class Access:
    """Finds out who is asking, and keeps book on who is refused.

    Args:
        trail: where refusals are written.
        certificates: whether callers show certificates that are checked.
        tokens: the bearer tokens; None when there are none.
        admins: names in certificates that make an operator, besides those of the role's own form.
        participant_name: the DNS name by which a certificate speaks for a resource, ``{resource}`` standing for it;
            empty when only the role's own forms count.
    """

    def __init__(
        self,
        trail: Trail,
        *,
        certificates: bool = False,
        tokens: TokenFile | None = None,
        admins: Collection[str] = (),
        participant_name: str = "",
    ) -> None:
        self._trail = trail
        self._certificates = certificates
        self._tokens = tokens
        self._admins = frozenset(admins)
        pattern = re.escape(participant_name).replace(re.escape("{resource}"), "(?P<resource>[a-z][a-z0-9_-]*)")
        self._participant = re.compile(pattern) if participant_name else None

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked who they are."""
        return not self._certificates and self._tokens is None

    def whose(self, context: Context) -> Identity | None:
        """Find out who makes a call.

        Returns:
            Their identity; None when nobody is asked for one.

        Raises:
            HandfastFault: IDENTITY_MISSING.
        """
        if self.is_open:
            return None
        identity = self._bearer(context)
        if identity is None and self._certificates:
            identity = self._holder(context)
        if identity is None:
            self.deny("somebody", "ask anything", "IDENTITY_MISSING", peer=context.peer())
        return identity

    def caller(self, context: Context) -> str:
        """Whom to hold a call against, before anybody is refused anything.

        Returns:
            The identity's name; without one the connection, for by that two strangers can be told apart.
        """
        if self.is_open:
            return context.peer()
        identity = self._known_bearer(context) or (self._holder(context) if self._certificates else None)
        return identity.name if identity is not None else context.peer()

    def deny(self, who: str, wish: str, code: str, *, peer: str = "", gtrid: str = "", needed: str = "") -> NoReturn:
        """Refuse, and write that down.

        Args:
            who: who asked.
            wish: what they wanted, as a verb with its object.
            code: IDENTITY_MISSING or PERMISSION_DENIED.
            peer: where they asked from.
            gtrid: the transaction concerned, or empty.
            needed: who would have been allowed.

        Raises:
            HandfastFault: the code's.
        """
        self._trail.denied(who, wish, code, gtrid=gtrid, peer=peer)
        raise HandfastFault(code, gtrid=gtrid, who=who, wish=wish, needed=needed)

    def _bearer(self, context: Context) -> Identity | None:
        """Who the token says; a token that nobody has is no reason to look at the certificate."""
        if self._tokens is None or _header(context.invocation_metadata() or ()) is None:
            return None
        identity = self._known_bearer(context)
        if identity is None:
            self.deny("the bearer of an unknown token", "ask anything", "IDENTITY_MISSING", peer=context.peer())
        return identity

    def _known_bearer(self, context: Context) -> Identity | None:
        header = _header(context.invocation_metadata() or ()) if self._tokens is not None else None
        found = _BEARER.fullmatch(header) if header is not None else None
        return self._tokens.bearer(found["token"]) if found and self._tokens is not None else None

    def _holder(self, context: Context) -> Identity | None:
        shown = context.auth_context()
        identity = identity_of_peer(shown)
        if identity is None:
            return None
        names = {name.decode("utf-8", "replace") for key in ("peer_uri", "peer_dns") for name in shown.get(key, ())}
        resources = {found["resource"] for name in names if (found := self._match(name))}
        known_otherwise = bool(resources - identity.resources) or bool(names & self._admins)
        if not known_otherwise:
            return identity
        return replace(
            identity,
            resources=identity.resources | resources,
            admin=identity.admin or bool(names & self._admins),
        )

    def _match(self, name: str) -> re.Match[str] | None:
        return None if self._participant is None else self._participant.fullmatch(name)


def _header(metadata: Iterable[Any]) -> str | None:
    for key, value in metadata:
        if key == AUTHORIZATION:
            return value if isinstance(value, str) else ""
    return None
