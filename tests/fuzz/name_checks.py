"""Names of any text at all: ours come back as they went, and nothing else becomes a gid."""

import re

from handfast.xid import (
    GID_BYTES_MAX,
    Gtrid,
    MalformedName,
    Xid,
    is_gtrid,
    make_bqual,
    named_unix_ms,
    split_bqual,
)

GID = re.compile(
    r"handfast_[a-z0-9]{8}-[0-9a-z]{1,8}-[0-9a-z]{1,10}-[0-9a-z]{1,12}_[a-z][a-z0-9_-]{0,31}\.[a-z0-9][a-z0-9_-]{0,23}"
)
"""What a gid looks like, written down a second time, in full."""


def check_names(gtrid: str, bqual: str, format_id: int) -> None:
    """One branch's names.

    Raises:
        AssertionError: a rule is broken.
    """
    _check_gtrid(gtrid)
    _check_bqual(bqual)
    xid = Xid(gtrid, bqual, format_id)
    gid = _gid(xid)
    if gid is None:
        return
    assert GID.fullmatch(gid), gid
    assert len(gid.encode()) <= GID_BYTES_MAX
    assert Xid.from_gid(gid) == xid


def _gid(xid: Xid) -> str | None:
    try:
        return xid.gid()
    except MalformedName as refused:
        if len(str(refused)) > 1_000:
            raise AssertionError(f"a refusal of {len(str(refused))} characters") from refused
    return None


def check_gid(text: str) -> None:
    """A name out of pg_prepared_xacts.

    Raises:
        AssertionError: somebody else's was taken for ours, or ours reads back as another.
    """
    found = Xid.from_gid(text)
    assert (found is not None) == bool(GID.fullmatch(text))
    if found is not None:
        assert found.gid() == text


def _check_gtrid(text: str) -> None:
    try:
        parsed = Gtrid.parse(text)
    except MalformedName:
        assert not is_gtrid(text)
        return
    assert is_gtrid(text)
    assert Gtrid.parse(str(parsed)) == parsed
    assert named_unix_ms(text) == parsed.time_ms
    assert min(parsed.epoch, parsed.time_ms, parsed.number) >= 0
    assert max(parsed.epoch, parsed.time_ms, parsed.number) < 2**63


def _check_bqual(text: str) -> None:
    try:
        resource, instance = split_bqual(text)
    except MalformedName:
        return
    assert make_bqual(resource, instance) == text


def check(data: bytes) -> None:
    """Bytes from a fuzzer: gtrid, bqual and gid, with NUL NUL between them."""
    parts = data.decode("utf-8", "surrogateescape").split("\0\0")
    gtrid, bqual, gid = (*parts, "", "", "")[:3]
    check_names(gtrid, bqual, 0x4846)
    check_gid(gid)
