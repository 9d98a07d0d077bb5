"""The driver's limits and times."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DriverOptions:
    """Limits and times, each with its default.

    Args:
        default_timeout_s: how long a transaction may stay undecided when its client does not say.
        timeout_max_s: the most a client may ask for.
        apply_wait_s: how long an answer waits for branches to apply the decision.
        abort_wait_s: the same for an abort. Shorter, because its client has waited for the deadline already, and what
            it waits for is only that locks are free.
        reply_timeout_s: how long one Commit or Rollback message may stay unanswered before it counts as failed.
        branches_max: branches of one transaction.
        open_transactions_max: transactions that are not ended.
        open_transactions_per_client_max: the same of one client, when it has a name.
        payload_bytes_max: one operation's payload.
        retention_s: how long an ended transaction is remembered.
        retry_base_s: the first backoff.
        retry_cap_s: the longest backoff.
        block_lifetime_s: for how long a block of gtrids may be used.
        block_size_max: gtrids in a block.
        participants_max: participant processes that are known.
        finished_kept_max: ended transactions kept in memory with their history.
        unrecorded_kept_max: names of transactions that committed without a record, kept in memory.
    """

    default_timeout_s: float = 30.0
    timeout_max_s: float = 3600.0
    apply_wait_s: float = 5.0
    abort_wait_s: float = 1.0
    reply_timeout_s: float = 30.0
    branches_max: int = 64
    open_transactions_max: int = 100_000
    open_transactions_per_client_max: int = 20_000
    payload_bytes_max: int = 4 * 1024 * 1024
    retention_s: float = 24 * 3600.0
    retry_base_s: float = 0.05
    retry_cap_s: float = 30.0
    block_lifetime_s: float = 600.0
    block_size_max: int = 4096
    participants_max: int = 10_000
    finished_kept_max: int = 10_000
    unrecorded_kept_max: int = 100_000
