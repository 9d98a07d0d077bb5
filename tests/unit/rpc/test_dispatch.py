"""The dispatch: a handler for each method, one reply for each request, and a gRPC status for each refusal."""

from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from coordinator.protocol.transaction import GlobalTransaction
from coordinator.rpc.coordinator_service import CoordinatorService, Dispatch
from coordinator.runtime.running import Running
from handfast.catalog import ENTRIES, HandfastFault
from handfast.frames import COORDINATOR
from handfast.v1 import coordinator_pb2 as c

GTRID = "k3v9q2xw-3-0m9xk2f1c-2s"


class StubRequests:
    """Answers Commit with a transaction that can't be encoded."""

    def commit(self, gtrid: str, branches: int, at_decision: bool, on_answer: Any) -> None:
        machine = GlobalTransaction(gtrid, 0.0)
        machine.cause = "no cause at all"  # type: ignore[assignment] # the defect
        on_answer(Running(machine, 0))


@pytest.mark.parametrize("request_type", COORDINATOR.methods, ids=lambda kind: kind.__name__)
def test_every_method_of_the_service_has_a_handler_and_a_unary_twin(request_type: type[Message]) -> None:
    dispatch: Any = Dispatch(StubRequests())  # type: ignore[arg-type] # asked nothing
    assert request_type in dispatch._handlers
    assert COORDINATOR.methods[request_type].name in vars(CoordinatorService)


def test_an_outcome_that_can_not_be_encoded_is_answered_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    replies: list[Message | HandfastFault] = []
    dispatch = Dispatch(StubRequests())  # type: ignore[arg-type] # only its commit is called
    dispatch(c.CommitRequest(gtrid=GTRID), replies.append)
    (fault,) = replies
    assert isinstance(fault, HandfastFault)
    assert (fault.code, fault.gtrid) == ("INTERNAL", GTRID)
    assert GTRID in caplog.text


@pytest.mark.parametrize("code", ENTRIES)
def test_every_entry_of_the_catalog_has_a_grpc_status_that_is_no_success(code: str) -> None:
    assert grpc.StatusCode[ENTRIES[code].grpc_status] is not grpc.StatusCode.OK
