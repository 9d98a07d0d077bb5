"""The error catalog: every way in which Handfast says no, once.

An entry has a stable ``code`` that programs match on, the gRPC status that a unary call answers, a sentence on what
happened (to which transaction or branch) and a sentence on what to do. The coordinator, the participant SDK and the
client all take their words from here; docs/errors.md is generated from it.

Entries of kind ``vote`` are no gRPC errors: they are the ``reason_code`` of a NO vote and reach the client inside
``TransactionAborted``.

What the programs say of themselves, the coordinator that won't start and the command, is in ``catalog_programs``.

This module imports the standard library only.
"""

from __future__ import annotations

from handfast.catalog_entry import Entry, Kind
from handfast.catalog_programs import PROGRAM_ENTRIES
from handfast.masking import masked

__all__ = ["ENTRIES", "Entry", "HandfastFault", "Kind"]

FIELD_LENGTH_MAX = 1_024
"""What is shown of a text that came from somewhere else: an error must not be as large as what it complains about."""


class HandfastFault(Exception):
    """An entry of the catalog that happened.

    Args:
        code: the entry's code.
        gtrid: the transaction concerned, or empty.
        bqual: the branch concerned, or empty.
        fields: what the entry's templates name. Secrets in texts and exceptions are masked.

    Raises:
        KeyError: no such entry, or a field that its templates need is missing.
    """

    def __init__(self, code: str, *, gtrid: str = "", bqual: str = "", **fields: object) -> None:
        self.entry = ENTRIES[code]
        self.code = code
        self.gtrid = gtrid
        self.bqual = bqual
        shown = {name: _masked(value) for name, value in fields.items()}
        self.message = self.entry.message.format(gtrid=gtrid, bqual=bqual, **shown)
        self.mend = self.entry.mend.format(gtrid=gtrid, bqual=bqual, **shown)
        super().__init__(f"{self.message} {self.mend}")


def _masked(value: object) -> object:
    """What may be shown of a field: other people's errors hold DSNs, and other people's names may be of any length."""
    return masked(str(value)[:FIELD_LENGTH_MAX]) if isinstance(value, str | BaseException) else value


def _entries(*entries: Entry) -> dict[str, Entry]:
    by_code = {entry.code: entry for entry in entries}
    if len(by_code) != len(entries):
        raise ValueError("a code stands twice in the error catalog")
    return by_code


ENTRIES = _entries(
    # -- calls ---------------------------------------------------------------------------------------------------
    Entry(
        "GTRID_MALFORMED",
        "call",
        "INVALID_ARGUMENT",
        "{text!r} is not a gtrid.",
        "Pass the gtrid as Begin returned it, or as it came in the metadata `handfast-gtrid`.",
    ),
    Entry(
        "NAME_MALFORMED",
        "call",
        "INVALID_ARGUMENT",
        "{text!r} is not a {kind}.",
        "A resource is [a-z][a-z0-9_-]{{0,31}}, an instance [a-z0-9][a-z0-9_-]{{0,23}}, a branch `resource.instance`.",
    ),
    Entry(
        "TRANSACTION_FOREIGN",
        "call",
        "NOT_FOUND",
        "Transaction {gtrid} was not made by this coordinator ({coordinator_id}).",
        "Ask the coordinator whose id begins the gtrid.",
    ),
    Entry(
        "TRANSACTION_UNKNOWN",
        "call",
        "NOT_FOUND",
        "Transaction {gtrid} is not known: this coordinator handed out no such gtrid, or it was handed out before "
        "the log's memory begins.",
        "Begin a new transaction. If this one may have committed, `handfast audit` compares the databases.",
    ),
    Entry(
        "TRANSACTION_NOT_ACTIVE",
        "call",
        "FAILED_PRECONDITION",
        "Transaction {gtrid} takes no more branches: it is {state}.",
        "Call services before Commit, and await their answers; begin a new transaction for more work.",
    ),
    Entry(
        "ALREADY_DECIDED",
        "call",
        "FAILED_PRECONDITION",
        "Transaction {gtrid} can't {wish}: it is {state}.",
        "The first decision stands. To undo a committed transaction, make a new one that does the opposite.",
    ),
    Entry(
        "BRANCHES_TOO_MANY",
        "call",
        "RESOURCE_EXHAUSTED",
        "Transaction {gtrid} would have more than {limit} branches.",
        "Use fewer participants in one transaction, or raise `branches_max`.",
    ),
    Entry(
        "TRANSACTIONS_TOO_MANY",
        "call",
        "RESOURCE_EXHAUSTED",
        "The coordinator holds {limit} open transactions, its limit.",
        "Retry with backoff; if it stays so, find clients that begin without ending (`handfast transactions list`) "
        "or raise `open_transactions_max`.",
    ),
    Entry(
        "TRANSACTIONS_OF_CLIENT_TOO_MANY",
        "call",
        "RESOURCE_EXHAUSTED",
        "The client {client} has {limit} open transactions, its limit.",
        "End transactions before beginning more; if it needs as many, raise `open_transactions_per_client_max`.",
    ),
    Entry(
        "BLOCKS_TOO_MANY",
        "call",
        "RESOURCE_EXHAUSTED",
        "The client {client} holds {limit} blocks of gtrids, the limit; each is kept for its lifetime.",
        "Draw larger blocks, and use up one before drawing the next; `handfast.connect` does.",
    ),
    Entry(
        "PARTICIPANTS_TOO_MANY",
        "call",
        "RESOURCE_EXHAUSTED",
        "The coordinator knows {limit} participant processes, its limit.",
        "Give a service the same address at each start, so that it replaces what it was; or raise `participants_max`.",
    ),
    Entry(
        "STREAMS_TOO_MANY",
        "call",
        "RESOURCE_EXHAUSTED",
        "{caller} has {limit} batched streams open, the limit.",
        "Share one connection between tasks (one `handfast.connect` for each process), or raise "
        "`streams_per_peer_max`.",
    ),
    Entry(
        "MESSAGES_TOO_MANY",
        "call",
        "RESOURCE_EXHAUSTED",
        "More than {limit} messages a second came on one stream.",
        "Retry with backoff, spread the load over processes, or raise `messages_per_s_max`. Commit and Rollback are "
        "never refused for this.",
    ),
    Entry(
        "PAYLOAD_TOO_LARGE",
        "call",
        "INVALID_ARGUMENT",
        "The payload of operation {operation!r} has {size} bytes; the limit is {limit}.",
        "Send a reference instead of the data, or raise `payload_bytes_max`.",
    ),
    Entry(
        "MESSAGE_MALFORMED",
        "call",
        "INVALID_ARGUMENT",
        "What came is no {kind}: {problem}.",
        "Send what proto/handfast/v1 says, by a protobuf library, to the address at which it is spoken.",
    ),
    Entry(
        "FRAME_CONNECTION_LOST",
        "call",
        "UNAVAILABLE",
        "The connection broke on which this stream's frames travelled beside gRPC.",
        "Open the stream again. When it recurs, mend the way to the frame port, or turn it off (`frame_address`).",
    ),
    Entry(
        "CALL_ID_REPEATED",
        "call",
        "INVALID_ARGUMENT",
        "The stream has a call {id} already that is not answered yet, so the answers could not be told apart.",
        "Give each call on a stream an id of its own, for example by counting.",
    ),
    Entry(
        "MESSAGE_TOO_LARGE",
        "call",
        "INVALID_ARGUMENT",
        "The {kind} has {size} bytes; one call carries {limit} at most.",
        "Send references instead of the data, or split the work.",
    ),
    Entry(
        "OPERATIONS_MISSING",
        "call",
        "INVALID_ARGUMENT",
        "Execute was called without operations.",
        "Name at least one operation, or use Begin and Commit.",
    ),
    Entry(
        "FIELD_INVALID",
        "call",
        "INVALID_ARGUMENT",
        "The field {field} is not valid: {problem}.",
        "See the field's comment in proto/handfast/v1.",
    ),
    Entry(
        "IDENTITY_MISSING",
        "call",
        "UNAUTHENTICATED",
        "The coordinator does not know who asks: {who} may not {wish}.",
        "Show a certificate that its authority signed and that holds a name, or a bearer token that stands in its "
        "tokens file; docs/security.md tells how.",
    ),
    Entry(
        "PERMISSION_DENIED",
        "call",
        "PERMISSION_DENIED",
        "{who} may not {wish}.",
        "Ask with the certificate or token of {needed}; docs/security.md tells who may do what.",
    ),
    Entry(
        "RESOURCE_UNKNOWN",
        "call",
        "FAILED_PRECONDITION",
        "No participant has registered the resource {resource!r}.",
        "Start its service, or check the name against `handfast doctor`.",
    ),
    Entry(
        "COORDINATOR_STOPPING",
        "call",
        "UNAVAILABLE",
        "The coordinator is stopping and takes no new work.",
        "Retry in a moment; what was decided is being finished.",
    ),
    Entry(
        "LOG_REFUSED",
        "call",
        "UNAVAILABLE",
        "The decision log refused a write: {problem}.",
        "Make room on the log's disk. Nothing was decided; transactions that asked to commit meanwhile are aborted.",
    ),
    Entry(
        "RESOLUTION_CONTRADICTS",
        "call",
        "FAILED_PRECONDITION",
        "Transaction {gtrid} was decided {decision}; resolving it the other way would break atomicity.",
        "Let it finish (`handfast resolve {gtrid} --retry-now`). If it must be, repeat with --heuristic; the outcome "
        "is then recorded as heuristic.",
    ),
    Entry(
        "RESOLUTION_IMPOSSIBLE",
        "call",
        "FAILED_PRECONDITION",
        "Transaction {gtrid} can't be resolved so: {problem}.",
        "`handfast transactions show {gtrid}` tells where it stands.",
    ),
    Entry(
        "PARTICIPANT_UNREACHABLE",
        "call",
        "UNAVAILABLE",
        "The participant {resource}.{instance} at {address} can't be reached: {problem}.",
        "Start it, or mend the network between the coordinator and it; `handfast doctor` checks all of them.",
    ),
    Entry(
        "INTERNAL",
        "call",
        "INTERNAL",
        "An internal error: {problem}.",
        "The transaction stays safe: ask for its outcome. Please report this with the coordinator's log.",
    ),
    # -- calls to a participant, and branches in a service -------------------------------------------------------
    Entry(
        "OUTSIDE_TRANSACTION",
        "call",
        "FAILED_PRECONDITION",
        "branch() of {resource!r} was entered outside a global transaction.",
        "Call the service inside `async with tm.transaction()` over a channel with handfast.client_interceptors(), "
        "and make its server with grpc.aio.server(interceptors=participant.interceptors(...)).",
    ),
    Entry(
        "BRANCH_NOT_ACTIVE",
        "call",
        "FAILED_PRECONDITION",
        "The branch {bqual} of {gtrid} takes no more work: it is {state}.",
        "Await every call to a service before Commit; begin a new transaction for more work.",
    ),
    Entry(
        "BRANCH_NOT_PREPARED",
        "call",
        "FAILED_PRECONDITION",
        "The branch {bqual} of {gtrid} can't do “{wish}”: it is {state}.",
        "`handfast transactions show {gtrid}` tells what was decided; please report this.",
    ),
    Entry(
        "ENLIST_FAILED",
        "call",
        "UNAVAILABLE",
        "The branch {bqual} of {gtrid} could not be enlisted, and its work was rolled back: {problem}",
        "Run the transaction again; if it recurs, check that the coordinator can be reached from this service.",
    ),
    Entry(
        "ANSWER_LOST",
        "call",
        "UNAVAILABLE",
        "The connection to the database broke while {bqual} of {gtrid} was being ended or prepared, and it is not "
        "known yet whether that was done: {problem}.",
        "Ask again. An orphan ends by itself as soon as database and coordinator can be reached.",
    ),
    Entry(
        "BRANCH_BUSY",
        "call",
        "UNAVAILABLE",
        "Another session works on the branch {bqual} of {gtrid} just now: {problem}.",
        "It is tried again by itself.",
    ),
    Entry(
        "BRANCH_IN_ANOTHER_DATABASE",
        "call",
        "FAILED_PRECONDITION",
        "The branch {bqual} of {gtrid} is prepared in another database than that of this participant: {problem}.",
        "Point the participant's DSN at the database where the branch was prepared.",
    ),
    Entry(
        "FINISH_FORBIDDEN",
        "call",
        "PERMISSION_DENIED",
        "The database role of {resource!r} may not end the branch {bqual} of {gtrid}: {problem}.",
        "Connect as the role that prepared it or as a superuser; `handfast indoubt` names its owner.",
    ),
    Entry(
        "RESOURCE_UNREACHABLE",
        "call",
        "UNAVAILABLE",
        "The database of {resource!r} did not do what it was asked: {problem}.",
        "Start it, or check the DSN and the network; prepared branches wait meanwhile and lose nothing.",
    ),
    Entry(
        "CALLER_NOT_COORDINATOR",
        "call",
        "PERMISSION_DENIED",
        "{who} is no coordinator and may not prepare or end branches.",
        "Only a certificate with spiffe://…/coordinator, coordinator.handfast, or one of the participant's "
        "coordinator_names may.",
    ),
    Entry(
        "RESOURCE_NOT_HERE",
        "call",
        "NOT_FOUND",
        "This process has no participant for the resource {resource!r}; it has: {known}.",
        "Check the address under which the resource is registered (`handfast doctor`).",
    ),
    Entry(
        "PARTICIPANT_CLOSED",
        "call",
        "UNAVAILABLE",
        "The participant {bqual} is not open.",
        "Call server.start(), then enter the participant with `async with`; on the way out leave it before "
        "server.stop(). When the service is stopping, call another instance.",
    ),
    # -- votes ---------------------------------------------------------------------------------------------------
    Entry(
        "BRANCH_UNKNOWN",
        "vote",
        "NOT_FOUND",
        "The branch {bqual} of {gtrid} is not held by this process: it restarted since, or the work never began.",
        "Run the transaction again.",
    ),
    Entry(
        "BRANCH_FAILED",
        "vote",
        "ABORTED",
        "The work in branch {bqual} failed earlier and was rolled back: {problem}.",
        "Mend what made the work fail; the client must not commit after an error it caught.",
    ),
    Entry(
        "ROLLED_BACK_FIRST",
        "vote",
        "ABORTED",
        "The branch {bqual} of {gtrid} was rolled back before it was asked to prepare.",
        "Run the transaction again.",
    ),
    Entry(
        "DEADLINE_PASSED",
        "vote",
        "DEADLINE_EXCEEDED",
        "The deadline of {gtrid} passed before {bqual} was prepared.",
        "Give the transaction more time, or find what is slow.",
    ),
    Entry(
        "OPERATION_UNKNOWN",
        "vote",
        "UNIMPLEMENTED",
        "The resource {resource!r} has no operation {operation!r}; it has: {known}.",
        "Register it with @participant.operation(…), or check the spelling.",
    ),
    Entry(
        "OPERATION_FAILED",
        "vote",
        "ABORTED",
        "The operation {operation!r} of {resource!r} failed: {problem}.",
        "Mend what made it fail, then run the transaction again.",
    ),
    Entry(
        "LOCK_TIMEOUT",
        "vote",
        "ABORTED",
        "The branch {bqual} waited too long for a lock: {problem}.",
        "Run the transaction again; if it recurs, touch rows in the same order everywhere, or make transactions "
        "shorter.",
    ),
    Entry(
        "DEADLOCK",
        "vote",
        "ABORTED",
        "Postgres ended the branch {bqual} to break a deadlock: {problem}.",
        "Run the transaction again; touch rows in the same order everywhere.",
    ),
    Entry(
        "SERIALIZATION_FAILURE",
        "vote",
        "ABORTED",
        "The branch {bqual} could not be serialized: {problem}.",
        "Run the transaction again.",
    ),
    Entry(
        "SLOTS_EXHAUSTED",
        "vote",
        "RESOURCE_EXHAUSTED",
        "Postgres of {resource!r} has no free slot for a prepared transaction: {problem}.",
        "Raise max_prepared_transactions (needs a restart), or end orphans: `handfast indoubt`.",
    ),
    Entry(
        "PREPARED_DISABLED",
        "vote",
        "FAILED_PRECONDITION",
        "Postgres of {resource!r} has max_prepared_transactions = 0.",
        "Set max_prepared_transactions to at least max_connections and restart Postgres.",
    ),
    Entry(
        "PREPARE_UNSUPPORTED",
        "vote",
        "FAILED_PRECONDITION",
        "Postgres can't prepare the branch {bqual}: {problem}.",
        "Keep temporary tables, LISTEN/NOTIFY, WITH HOLD cursors and session advisory locks out of branches.",
    ),
    Entry(
        "ROLE_LACKS_RIGHTS",
        "vote",
        "PERMISSION_DENIED",
        "The database role of {resource!r} lacks a right: {problem}.",
        "Grant it, or connect as the role that owns the tables and prepares the branches.",
    ),
    Entry(
        "CONSTRAINT_VIOLATED",
        "vote",
        "ABORTED",
        "A constraint forbids the work of branch {bqual}: {problem}.",
        "Change the work, or the data.",
    ),
    Entry(
        "DATABASE_UNREACHABLE",
        "vote",
        "UNAVAILABLE",
        "The database of {resource!r} can't be reached: {problem}.",
        "Start it, or check the DSN and the network.",
    ),
    Entry(
        "CONNECTIONS_EXHAUSTED",
        "vote",
        "RESOURCE_EXHAUSTED",
        "No connection to the database of {resource!r} came free in time.",
        "Raise the participant's `connections_max`, or lower the load.",
    ),
    Entry(
        "PREPARE_FAILED",
        "vote",
        "ABORTED",
        "Postgres did not prepare the branch {bqual}: {problem}.",
        "Read the cause; then run the transaction again.",
    ),
    Entry(
        "BRANCH_STILL_AT_WORK",
        "vote",
        "ABORTED",
        "The branch {bqual} of {gtrid} was asked to prepare while a call was still working in it.",
        "Await every call to a service before Commit, also those that are no longer needed.",
    ),
    Entry(
        "VOTE_LOST",
        "vote",
        "UNAVAILABLE",
        "The participant {bqual} did not vote: {problem}.",
        "Run the transaction again; if it recurs, look at the participant and at the network between.",
    ),
    *PROGRAM_ENTRIES,
)
"""By code."""
