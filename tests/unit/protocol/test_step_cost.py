"""What the protocol core costs, counted: a step that grows dearer has to be seen, and time is no measure for a test.

Counted are the bytecode instructions of one committed transaction.
"""

import sys

from coordinator.protocol import events as e
from coordinator.protocol.states import Decision, Outcome, TransactionState, Vote
from coordinator.protocol.transaction import GlobalTransaction
from tests.unit.protocol.counting import Counting

BRANCHES = ("accounts.one", "ledger.one")
INSTRUCTIONS = {(3, 11): 1333, (3, 12): 1236, (3, 13): 1190}
CALLS_MAX = 50


def events() -> list[e.Event]:
    """A transaction of two branches that commits."""
    enlisted = [e.Enlisted(bqual) for bqual in BRANCHES]
    votes = [e.VoteReceived(bqual, Vote.YES, 1.0, "pg:7") for bqual in BRANCHES]
    ends = [e.BranchEnded(bqual, Outcome.COMMITTED) for bqual in BRANCHES]
    return [*enlisted, e.CommitRequested(1.0), *votes, e.DecisionStood(Decision.COMMIT), *ends]


def counted() -> tuple[int, int]:
    """Step a machine through it; return how many instructions and how many Python calls that took."""
    machine, steps = GlobalTransaction("k3v9q2xw-3-0m9xk2f1c-2s", 1e9), events()
    with Counting() as count:
        for event in steps:
            machine.step(event)
    assert machine.state is TransactionState.COMMITTED
    return count.instructions, count.calls


def test_a_transaction_costs_the_protocol_core_exactly_so_many_instructions() -> None:
    counted()  # the first one also fills the interpreter's caches
    instructions, calls = counted()
    # A version that is not listed takes about as many: add it, with what it takes.
    known = INSTRUCTIONS.get(sys.version_info[:2])
    assert instructions == known if known is not None else instructions <= 1.2 * max(INSTRUCTIONS.values())
    assert calls <= CALLS_MAX
