"""Handfast: one unit of work across several services' databases, or none of it.

What an application imports. A map of the package, from the outside in:

    client.py        connect, and the TransactionManager it returns
    transaction.py   one transaction: the block, commit, rollback
    settling.py      asking until an outcome is known
    blocks.py        gtrids without a round trip
    interceptors.py  carrying the transaction to the services that are called
    context.py       the ambient transaction, and its metadata
    errors.py        what can go wrong, as one tree
    outcomes.py      what became of a transaction, as values
    tls.py           TLS towards the coordinator
    frames/          batched streams, which every hop uses
    catalog.py       every way in which Handfast says no (with catalog_entry.py and catalog_programs.py)
    xid.py           names of transactions and branches
    clock.py         time and chance
    failpoints.py    planned crashes, for tests
    trace.py         what a process did, for somebody outside (traced_settler.py: the client's)
    v1/              the wire's generated stubs

Names are imported when they are first used, so that `import handfast.xid` does not load gRPC.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handfast.client import TransactionManager, connect
    from handfast.context import TransactionContext
    from handfast.context import current as current_transaction
    from handfast.errors import (
        AlreadyDecided,
        CoordinatorUnavailable,
        DeadlineExceeded,
        HandfastError,
        HeuristicOutcome,
        OutcomeUnknown,
        Refused,
        TooManyTransactions,
        TransactionAborted,
        TransactionError,
        UnknownTransaction,
    )
    from handfast.interceptors import client_interceptors
    from handfast.outcomes import AbortCause, BranchReport, ExecuteResult, Outcome, OutcomeReport, Standing
    from handfast.tls import ServerTls, TlsConfig
    from handfast.transaction import Transaction

__all__ = [
    "AbortCause",
    "AlreadyDecided",
    "BranchReport",
    "CoordinatorUnavailable",
    "DeadlineExceeded",
    "ExecuteResult",
    "HandfastError",
    "HeuristicOutcome",
    "Outcome",
    "OutcomeReport",
    "OutcomeUnknown",
    "Refused",
    "ServerTls",
    "Standing",
    "TlsConfig",
    "TooManyTransactions",
    "Transaction",
    "TransactionAborted",
    "TransactionContext",
    "TransactionError",
    "TransactionManager",
    "UnknownTransaction",
    "client_interceptors",
    "connect",
    "current_transaction",
]

_RENAMED = {"current_transaction": ("context", "current")}
_HOMES = {
    "client": ("TransactionManager", "connect"),
    "context": ("TransactionContext",),
    "interceptors": ("client_interceptors",),
    "outcomes": ("AbortCause", "BranchReport", "ExecuteResult", "Outcome", "OutcomeReport", "Standing"),
    "tls": ("ServerTls", "TlsConfig"),
    "transaction": ("Transaction",),
}
_HOME = {name: (home, name) for home, names in _HOMES.items() for name in names} | _RENAMED


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, known_there_as = _HOME.get(name, ("errors", name))
    value: object = getattr(importlib.import_module(f"{__name__}.{home}"), known_there_as)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
