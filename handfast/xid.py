"""Names of transactions and branches, and the one place that turns them into text and back.

A global transaction is named by its *gtrid*, a branch by gtrid and *bqual* together, and X/Open XA puts a format id
before both so that several transaction managers can share a database. Recovery rests on these names alone: a branch
that a crash left prepared says by its name which coordinator made it, in which life (epoch) of that coordinator, when,
and which process held it. So names are made in one place, checked by one regular expression each, and nothing that
fails the check reaches a database.

    gtrid   k3v9q2xw-3-0m9xk2f1c-2s        coordinator id - epoch - time - number
    bqual   accounts.7hx2k9qd              resource . instance
    gid     handfast_k3v9q2xw-3-0m9xk2f1c-2s_accounts.7hx2k9qd

The gid is what Postgres shows in ``pg_prepared_xacts``. Psycopg would encode an Xid there in base 64; a plain spelling
serves the person who reads that view at night. Format id 18502 (0x4846, "HF") is spelled ``handfast``.

This module imports the standard library and handfast.values only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from handfast.values import value

FORMAT_ID = 0x4846
GID_PREFIX = "handfast"
GID_BYTES_MAX = 199
"""Postgres refuses a longer name in PREPARE TRANSACTION."""

COORDINATOR_ID_LENGTH = 8
ID_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"
"""Letters and digits that nobody reads as one another; used for random ids."""

NAMES_CACHED = 4096
"""Branches are named anew by every transaction, and are few: checked names are remembered. Bad ones are not."""

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_COORDINATOR_ID = rf"[a-z0-9]{{{COORDINATOR_ID_LENGTH}}}"
_GTRID = re.compile(
    rf"(?P<coordinator_id>{_COORDINATOR_ID})-(?P<epoch>[0-9a-z]{{1,8}})-(?P<time>[0-9a-z]{{1,10}})-(?P<number>[0-9a-z]{{1,12}})"
)
_RESOURCE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_INSTANCE = re.compile(r"[a-z0-9][a-z0-9_-]{0,23}")


class MalformedName(ValueError):
    """A gtrid, bqual, resource, instance or gid that our rules did not make.

    Args:
        kind: which kind of name, for example ``"gtrid"``.
        text: the offending text; shown cut to 80 characters.
    """

    def __init__(self, kind: str, text: str) -> None:
        shown = text if len(text) <= 80 else text[:77] + "..."
        super().__init__(f"not a {kind}: {shown!r}")
        self.kind = kind
        self.text = text


def base36(number: int) -> str:
    """Spell a number >= 0 in lower-case base 36.

    Raises:
        ValueError: the number is negative.
    """
    if number < 0:
        raise ValueError(f"base 36 has no sign: {number}")
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _BASE36[digit] + digits
        if number == 0:
            return digits


@dataclass(frozen=True, slots=True)
class Gtrid:
    """The parts of a gtrid.

    Args:
        coordinator_id: the coordinator that made it; eight characters, made once when its log was created.
        epoch: that coordinator's life; grows, forced to the log, at each start.
        time_ms: when the gtrid (or the block it comes from) was handed out, in milliseconds since 1970.
        number: distinguishes the gtrids of one epoch and time.
    """

    coordinator_id: str
    epoch: int
    time_ms: int
    number: int

    def __str__(self) -> str:
        return self.prefix() + base36(self.number)

    def prefix(self) -> str:
        """The text before the number, its hyphen included; all gtrids of one block share it."""
        return f"{self.coordinator_id}-{base36(self.epoch)}-{base36(self.time_ms)}-"

    @classmethod
    def parse(cls, text: str) -> Gtrid:
        """Read a gtrid.

        Raises:
            MalformedName: the text is not one.
        """
        found = _GTRID.fullmatch(text)
        if found is None:
            raise MalformedName("gtrid", text)
        return cls(found["coordinator_id"], int(found["epoch"], 36), int(found["time"], 36), int(found["number"], 36))


def named_unix_ms(gtrid: str) -> int:
    """Tell when a gtrid, or the block it comes from, was handed out, in milliseconds since 1970.

    Raises:
        MalformedName: the text is not a gtrid.
    """
    return _block_unix_ms(gtrid.rpartition("-")[0])


@lru_cache(maxsize=1024)
def _block_unix_ms(block: str) -> int:
    """The same of all gtrids of one block."""
    return Gtrid.parse(f"{block}-0").time_ms


def is_gtrid(text: str) -> bool:
    """Tell whether the text is a gtrid, whoever made it."""
    return _GTRID.fullmatch(text) is not None


@lru_cache(maxsize=NAMES_CACHED)
def check_gtrid(text: str) -> str:
    """Return the text when it is a gtrid, whoever made it. A branch is named several times on its way: checked once.

    Raises:
        MalformedName: it is not.
    """
    if not is_gtrid(text):
        raise MalformedName("gtrid", text)
    return text


def check_resource(name: str) -> str:
    """Return the name when it is a resource's: ``[a-z][a-z0-9_-]{0,31}``.

    Raises:
        MalformedName: it is not.
    """
    if _RESOURCE.fullmatch(name) is None:
        raise MalformedName("resource name", name)
    return name


def check_instance(name: str) -> str:
    """Return the name when it is an instance's: ``[a-z0-9][a-z0-9_-]{0,23}``.

    Raises:
        MalformedName: it is not.
    """
    if _INSTANCE.fullmatch(name) is None:
        raise MalformedName("instance name", name)
    return name


@lru_cache(maxsize=NAMES_CACHED)
def make_bqual(resource: str, instance: str) -> str:
    """Name the branch that this instance of the resource holds in some transaction.

    Raises:
        MalformedName: one of the two is not a proper name.
    """
    return f"{check_resource(resource)}.{check_instance(instance)}"


@lru_cache(maxsize=NAMES_CACHED)
def split_bqual(bqual: str) -> tuple[str, str]:
    """Return a branch's resource and instance.

    Raises:
        MalformedName: the text is not a bqual.
    """
    resource, dot, instance = bqual.partition(".")
    if not dot or _RESOURCE.fullmatch(resource) is None or _INSTANCE.fullmatch(instance) is None:
        raise MalformedName("bqual", bqual)
    return resource, instance


@value
class Xid:
    """One branch of one global transaction (X/Open XA's XID).

    Args:
        gtrid: the global transaction.
        bqual: the branch, ``resource.instance``.
        format_id: whose naming this is; ours is ``FORMAT_ID``.
    """

    gtrid: str
    bqual: str
    format_id: int = FORMAT_ID

    @property
    def resource(self) -> str:
        """The resource that the branch changes."""
        return split_bqual(self.bqual)[0]

    @property
    def instance(self) -> str:
        """The process that held the branch when it was prepared."""
        return split_bqual(self.bqual)[1]

    @property
    def coordinator_id(self) -> str:
        """The coordinator that made the transaction."""
        return self.gtrid[:COORDINATOR_ID_LENGTH]

    def gid(self) -> str:
        """Spell the branch as the name for PREPARE TRANSACTION; safe inside single quotes.

        Raises:
            MalformedName: gtrid or bqual is not of our making, so that it must not reach a database.
        """
        if self.format_id != FORMAT_ID:
            raise MalformedName("gtrid", self.gtrid)
        check_gtrid(self.gtrid)
        split_bqual(self.bqual)
        return f"{GID_PREFIX}_{self.gtrid}_{self.bqual}"

    @classmethod
    def from_gid(cls, gid: str) -> Xid | None:
        """Read a name found in ``pg_prepared_xacts``; None when it is somebody else's."""
        prefix, _, rest = gid.partition("_")
        gtrid, _, bqual = rest.partition("_")
        if prefix != GID_PREFIX or not is_gtrid(gtrid):
            return None
        try:
            split_bqual(bqual)
        except MalformedName:
            return None
        return cls(gtrid, bqual)
