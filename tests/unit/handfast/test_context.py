"""The ambient transaction and its way through metadata, hop by hop."""

import asyncio
import math

import pytest

from handfast import context
from handfast.catalog import HandfastFault
from handfast.context import TransactionContext

GTRID = "k3v9q2xw-1-0m9xk2f1c-2s"


def test_metadata_carries_the_gtrid_and_the_time_left() -> None:
    metadata = context.to_metadata(TransactionContext(GTRID, 105.25), now_s=100)
    assert metadata == (("handfast-gtrid", GTRID), ("handfast-timeout-ms", "5250"))


def test_a_hop_takes_the_time_left_by_its_own_clock() -> None:
    metadata = context.to_metadata(TransactionContext(GTRID, 105.25), now_s=100)
    assert context.from_metadata(metadata, now_s=7) == TransactionContext(GTRID, 12.25)


def test_no_time_left_is_told_as_the_least_there_is_because_none_would_mean_the_default() -> None:
    assert context.to_metadata(TransactionContext(GTRID, 99), now_s=100)[1] == ("handfast-timeout-ms", "1")


def test_a_transaction_without_a_deadline_carries_no_time() -> None:
    metadata = context.to_metadata(TransactionContext(GTRID, math.inf))
    assert metadata == (("handfast-gtrid", GTRID),)
    assert context.from_metadata(metadata) == TransactionContext(GTRID, math.inf)


def test_a_time_beyond_the_wire_is_cut_to_what_it_holds() -> None:
    assert TransactionContext(GTRID, 1e12).timeout_ms(now_s=0) == 2**32 - 1


@pytest.mark.parametrize(
    "metadata", [None, (), (("handfast-timeout-ms", "5"), ("x", "y"))], ids=["none", "no", "other"]
)
def test_a_call_without_a_gtrid_is_in_no_transaction(metadata: context.MetadataPairs | None) -> None:
    assert context.from_metadata(metadata) is None


@pytest.mark.parametrize("gtrid", ["", "nonsense", GTRID + "'", GTRID.upper(), "x" * 500], ids=range(5))
def test_a_malformed_gtrid_is_refused(gtrid: str) -> None:
    with pytest.raises(HandfastFault, match="is not a gtrid") as refused:
        context.from_metadata([("handfast-gtrid", gtrid)])
    assert refused.value.code == "GTRID_MALFORMED"


@pytest.mark.parametrize("text", ["", "-1", "1.5", "٣", "9" * 11, "soon"], ids=range(6))
def test_a_malformed_time_is_refused(text: str) -> None:
    with pytest.raises(HandfastFault, match="handfast-timeout-ms") as refused:
        context.from_metadata([("handfast-gtrid", GTRID), ("handfast-timeout-ms", text)])
    assert refused.value.code == "FIELD_INVALID"


def test_binary_metadata_is_read_as_text() -> None:
    found = context.from_metadata([("handfast-gtrid", GTRID.encode())])
    assert found == TransactionContext(GTRID, math.inf)


def test_what_was_ambient_before_a_block_is_ambient_after_it() -> None:
    outer, inner = TransactionContext(GTRID, 1), TransactionContext(GTRID + "x", 2)
    with context.within(outer):
        with context.within(inner):
            assert context.current() == inner
        with context.within(None):
            assert context.current() is None
        assert context.current() == outer
    assert context.current() is None


async def test_a_task_takes_along_what_was_ambient_where_it_started() -> None:
    async def look() -> TransactionContext | None:
        return context.current()

    with context.within(TransactionContext(GTRID, 1)):
        task = asyncio.create_task(look())
    assert await task == TransactionContext(GTRID, 1)


def test_an_answer_tells_which_branches_joined() -> None:
    served, asked = TransactionContext(GTRID, 1), TransactionContext(GTRID, 1)
    served.branches.update({"ledger.b1", "accounts.a1"})
    context.learn_joined(asked, [("other", "x"), *context.joined_to_metadata(served)])
    assert asked.branches == {"accounts.a1", "ledger.b1"}
    context.learn_joined(asked, [("handfast-branches", "")])
    assert asked.branches == {"accounts.a1", "ledger.b1"}  # one too many would make a lost commit look like an abort


def test_an_answer_from_where_nothing_joined_tells_of_no_branch() -> None:
    asked = TransactionContext(GTRID, 1)
    context.learn_joined(asked, context.joined_to_metadata(TransactionContext(GTRID, 1)))
    assert asked.branches == set()
