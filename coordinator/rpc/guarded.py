"""The dispatch for callers who have to say who they are: the same as for everybody, after a look at who asks.

    participant   Register, Enlist, and Inquire about a branch: for its own resource
    client        Begin and Execute; Commit, Rollback and Inquire for what it began itself
    admin         what a client may, for every transaction

Votes need no rule here. They come as answers on the coordinator's own connection to the participant, whose server has
proved which resource it is (``Links``).

Who began a transaction is the name of the identity, kept with the block of gtrids, with the transaction, and in its
decision record. Where none is on record, because nothing was ever begun or it was presumed aborted, there is nothing to
protect: the answer says only what follows from that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NoReturn

from coordinator.rpc.access import Access, Context
from coordinator.rpc.coordinator_service import Dispatch
from coordinator.runtime.requests import Requests
from coordinator.runtime.row_requests import RowRequests
from handfast.frames import Reply
from handfast.identity import Identity
from handfast.v1 import coordinator_pb2 as c
from handfast.xid import MalformedName, split_bqual


class GuardedDispatch(Dispatch):
    """The dispatch for one caller.

    Args:
        requests: what the coordinator can be asked.
        caller: who asks.
        access: keeps book on refusals.
        peer: where they ask from.
        rows: as ``Dispatch`` has it.
    """

    def __init__(
        self, requests: Requests, caller: Identity, access: Access, peer: str, rows: RowRequests | None = None
    ) -> None:
        super().__init__(requests, rows)
        self._caller = caller
        self._refuse = partial(access.deny, caller.name, code="PERMISSION_DENIED", peer=peer)

    @property
    def caller(self) -> str:
        """Whose requests these are."""
        return self._caller.name

    def _client(self, named_itself: str) -> str:
        return self._caller.name

    def _begin(self, request: c.BeginRequest, reply: Reply) -> None:
        self._must_be_client("begin a transaction")
        super()._begin(request, reply)

    def _execute(self, request: c.ExecuteRequest, reply: Reply) -> None:
        self._must_be_client("execute a transaction", request.gtrid)
        if request.gtrid:
            self._must_own(request.gtrid, "execute a transaction as")
        super()._execute(request, reply)

    def _may_execute(self, owner: str) -> bool:
        # Who may not is refused call by call, and so it is written down.
        return self._caller.admin or (self._caller.client and owner in ("", self._caller.name))

    def _commit(self, request: c.CommitRequest, reply: Reply) -> None:
        self._must_own(request.gtrid, "commit")
        super()._commit(request, reply)

    def _rollback(self, request: c.RollbackRequest, reply: Reply) -> None:
        self._must_own(request.gtrid, "roll back")
        super()._rollback(request, reply)

    def _enlist(self, request: c.EnlistRequest, reply: Reply) -> None:
        self._must_hold(request.resource, "enlist a branch of", request.gtrid)
        super()._enlist(request, reply)

    def _register(self, request: c.RegisterRequest, reply: Reply) -> None:
        self._must_hold(request.resource, "register")
        super()._register(request, reply)

    def _inquire(self, request: c.InquireRequest, reply: Reply) -> None:
        if not request.bqual:
            self._must_own(request.gtrid, "inquire about")
        elif not self._caller.admin:
            self._must_hold(_resource_of(request.bqual), "inquire for", request.gtrid)
        super()._inquire(request, reply)

    # -- the rules -------------------------------------------------------------------------------------------------

    def _must_be_client(self, wish: str, gtrid: str = "") -> None:
        if not (self._caller.client or self._caller.admin):
            self._no(wish, "a client", gtrid)

    def _must_own(self, gtrid: str, wish: str) -> None:
        if self._caller.admin:
            return
        self._must_be_client(f"{wish} a transaction", gtrid)
        owner = self._requests.client_of(gtrid)
        if owner and owner != self._caller.name:
            self._no(f"{wish} another's transaction", "the client that began it, or an admin", gtrid)

    def _must_hold(self, resource: str, wish: str, gtrid: str = "") -> None:
        if resource not in self._caller.resources:
            self._no(f"{wish} {resource[:64]!r}", f"a participant of {resource[:64]!r}", gtrid)

    def _no(self, wish: str, needed: str, gtrid: str) -> NoReturn:
        self._refuse(wish, needed=needed, gtrid=gtrid[:80])
        raise AssertionError("a refusal returned")


def dispatch_for(requests: Requests, access: Access, rows: RowRequests) -> Callable[[Context], Dispatch]:
    """What takes a caller's requests: one for all where nobody is asked who they are, else one for each call."""
    everybody = Dispatch(requests, rows)

    def chosen(context: Context) -> Dispatch:
        caller = access.whose(context)
        return everybody if caller is None else GuardedDispatch(requests, caller, access, context.peer(), rows)

    return chosen


def _resource_of(bqual: str) -> str:
    try:
        return split_bqual(bqual)[0]
    except MalformedName:
        return bqual
