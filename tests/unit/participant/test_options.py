"""Settings are checked where they are made, and the message names the one that is wrong."""

import pytest

from handfast.catalog import HandfastFault
from participant import Participant, ParticipantOptions
from participant.postgres import PostgresResource
from participant.testing import MemoryResource


@pytest.mark.parametrize(
    ("setting", "value"), [("connections_max", 0), ("lock_timeout_s", -1.0), ("retry_first_s", 10.0)]
)
def test_a_senseless_option_is_named(setting: str, value: float) -> None:
    with pytest.raises(HandfastFault, match=setting) as refused:
        ParticipantOptions(**{setting: value})  # type: ignore[arg-type]  # that is the point
    assert refused.value.code == "SETTING_INVALID"


def test_a_resource_name_that_no_branch_could_carry_is_refused() -> None:
    with pytest.raises(HandfastFault, match="name"):
        Participant("Accounts!", MemoryResource(), coordinator="127.0.0.1:1", address="127.0.0.1:1")


async def test_a_dsn_that_can_not_be_read_is_refused() -> None:
    with pytest.raises(HandfastFault, match="dsn"):
        await PostgresResource("postgresql://[nonsense").open("accounts.one")


def test_an_operation_name_is_taken_once() -> None:
    accounts = Participant("accounts", MemoryResource(), coordinator="127.0.0.1:1", address="127.0.0.1:1")

    async def work(changes: dict[str, object], payload: bytes) -> None: ...

    accounts.operation("withdraw")(work)
    with pytest.raises(ValueError, match="withdraw"):
        accounts.operation("withdraw")(work)
