"""The form of an entry of the error catalog.

This module imports the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["call", "vote", "start", "command"]
"""Where an entry shows: an RPC's error, a NO vote's reason, a refusal to start, or what the command itself says."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One way to say no.

    Args:
        code: the stable name.
        kind: where it shows.
        grpc_status: the name of the gRPC status code, for example ``"NOT_FOUND"``.
        message: what happened; a ``str.format`` template.
        mend: what to do; a ``str.format`` template over the same fields.
    """

    code: str
    kind: Kind
    grpc_status: str
    message: str
    mend: str
