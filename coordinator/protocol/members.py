"""The states and answers that every step meets, by plain names.

Up to Python 3.11, to look a member up in its Enum costs as much as a call, and a transaction would do that some sixty
times. ``COMMITTED`` says how something ended; the states of that name are spelled out where they are meant.
"""

from __future__ import annotations

from coordinator.protocol.states import Decision, Outcome, TransactionState, Vote

ACTIVE = TransactionState.ACTIVE
PREPARING = TransactionState.PREPARING
COMMITTING = TransactionState.COMMITTING
ABORTING = TransactionState.ABORTING

YES = Vote.YES
NO = Vote.NO
READ_ONLY = Vote.READ_ONLY

COMMIT = Decision.COMMIT
ABORT = Decision.ABORT

COMMITTED = Outcome.COMMITTED
