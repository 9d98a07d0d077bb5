"""Bearer tokens: who somebody is where TLS ends before the coordinator, at a proxy that shows no certificate of theirs.

The file has a line for each token: the SHA-256 of the token in hexadecimal, and what its bearer is.

    # openssl rand -hex 32 | tee billing.token | tr -d '\\n' | sha256sum
    2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae  client/billing
    fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9  participant/accounts participant/ledger

So the file tells nobody a token. A presented token is hashed and compared with every line, in a time that says nothing
about which of them came near. The file is read again when it changes; one that can't be read anew leaves the old lines
in force and is logged, for a slip of the pen must not lock everybody out.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from pathlib import Path

from handfast.identity import TRUST_DOMAIN, Identity, identity_of_names

logger = logging.getLogger(__name__)

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ROLE = re.compile(r"(?:participant|client|admin)/[A-Za-z0-9_-]{1,63}")

_Stamp = tuple[int, int, int]


class TokenFile:
    """The tokens in a file.

    Args:
        path: the file.

    Raises:
        OSError: it can't be read.
        ValueError: a line is not of the form above; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._stamp()
        self._bearers = parse_tokens(path.read_text(encoding="utf-8"))

    def bearer(self, token: str) -> Identity | None:
        """Who bears this token; None when nobody does."""
        self._reread()
        presented = hashlib.sha256(token.encode()).hexdigest()
        found = None
        for digest, identity in self._bearers:
            if hmac.compare_digest(digest, presented):
                found = identity
        return found

    def _reread(self) -> None:
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._seen = stamp
            self._bearers = parse_tokens(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            logger.warning("the tokens in %s can't be read anew, so the old ones stay: %s", self._path, problem)
            return
        logger.info("read anew: %s, %d tokens", self._path, len(self._bearers))

    def _stamp(self) -> _Stamp:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino


def parse_tokens(text: str) -> list[tuple[str, Identity]]:
    """Read the lines.

    Raises:
        ValueError: one is not of the form.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        digest, *roles = words
        if not _DIGEST.fullmatch(digest):
            # The line may hold the token itself by mistake, so it is not repeated.
            raise ValueError(f"line {number} does not begin with the SHA-256 of a token")
        if not roles or not all(map(_ROLE.fullmatch, roles)):
            raise ValueError(f"line {number} must name participant/NAME, client/NAME or admin/NAME")
        identity = identity_of_names([f"spiffe://{TRUST_DOMAIN}/{role}" for role in roles], [])
        assert identity is not None
        found.append((digest, identity))
    return found
