"""Secrets are taken out of what people and programs read: passwords of DSNs, bearer tokens, private keys.

It is done where words leave their maker, whoever that is: in every error of the catalog, in what a peer's failure says,
in what a participant votes and finds, in what an operator gives as a reason, and in every log line. Where it is not
clear how far a secret goes, more is masked rather than less.

This module imports the standard library only.
"""

from __future__ import annotations

import re

MASK = "***"

# `scheme://user:password@host`; `password=…` of a keyword DSN, bare or in quotes, also as a URI's parameter
# or a variable (PGPASSWORD). Where it is not clear how far a password goes, more is masked rather than less: up to the
# last @ of the word. The texts may be a stranger's, so no pattern may take a time that grows with their square.
_UP_TO_LAST_AT = re.compile(r"(?<!\S)\S+@")
_URI_USER = re.compile(r"\b[a-z][a-z0-9+.-]{0,31}://[^\s:/@]{0,255}:", re.IGNORECASE)
_KEYWORD_PASSWORD = re.compile(
    r"(?P<before>\b\w*password['\"]?\s*[=:]\s*)(?P<secret>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s&,;)'\"]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?P<before>\bbearer\s+)(?P<secret>[A-Za-z0-9._~+/=-]{16,})", re.IGNORECASE)
_PRIVATE_KEY = re.compile(r"(?P<before>-----BEGIN [A-Z ]*PRIVATE KEY-----)(?P<secret>.*?)(?=-----END|\Z)", re.DOTALL)


def masked(text: str) -> str:
    """The text without the secrets in it."""
    if not text:
        return text  # every vote's reason comes by here, and nearly all give none
    text = _UP_TO_LAST_AT.sub(_without_uri_password, text)
    for pattern in (_KEYWORD_PASSWORD, _BEARER, _PRIVATE_KEY):
        text = pattern.sub(rf"\g<before>{MASK}", text)
    return text


def _without_uri_password(word: re.Match[str]) -> str:
    user = _URI_USER.search(word[0])
    return word[0] if user is None else f"{word[0][: user.end()]}{MASK}@"
