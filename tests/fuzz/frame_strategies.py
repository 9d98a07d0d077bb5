"""Frames as Hypothesis makes them: of the right kind, with whatever may stand in their fields."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.fuzz.texts import wire_text

GTRIDS = st.one_of(wire_text, st.sampled_from(["k3v9q2xw-1-loyw3v28-0", "k3v9q2xw-1-0-0", "zzzzzzzz-1-1-1"]))
RESOURCES = st.one_of(wire_text, st.sampled_from(["accounts", "ledger", "audit"]))
INSTANCES = st.one_of(wire_text, st.sampled_from(["a1", "b1", "c1"]))
BQUALS = st.one_of(wire_text, st.sampled_from(["accounts.a1", "ledger.b1"]))
NUMBERS = st.sampled_from([0, 1, 2, 1_000, 2**31 - 1, 2**32 - 1])
IDS = st.one_of(st.integers(0, 5), st.sampled_from([2**63, 2**64 - 1]))
OPERATIONS = st.lists(
    st.builds(
        t.Operation, resource=RESOURCES, name=st.one_of(wire_text, st.just("write")), payload=st.binary(max_size=9)
    ),
    max_size=4,
)

coordinator_calls = st.one_of(
    st.builds(c.CoordinatorCall, id=IDS),
    st.builds(
        c.CoordinatorCall,
        id=IDS,
        begin=st.builds(c.BeginRequest, timeout_ms=NUMBERS, block_size=NUMBERS, client=wire_text),
    ),
    st.builds(
        c.CoordinatorCall,
        id=IDS,
        enlist=st.builds(c.EnlistRequest, gtrid=GTRIDS, resource=RESOURCES, instance=INSTANCES, timeout_ms=NUMBERS),
    ),
    st.builds(
        c.CoordinatorCall,
        id=IDS,
        commit=st.builds(c.CommitRequest, gtrid=GTRIDS, wait=st.integers(0, 9), branches=NUMBERS),
    ),
    st.builds(
        c.CoordinatorCall,
        id=IDS,
        rollback=st.builds(c.RollbackRequest, gtrid=GTRIDS, reason=wire_text, branches=NUMBERS),
    ),
    st.builds(
        c.CoordinatorCall,
        id=IDS,
        execute=st.builds(
            c.ExecuteRequest, gtrid=GTRIDS, timeout_ms=NUMBERS, operations=OPERATIONS, wait=st.integers(0, 9)
        ),
    ),
    st.builds(
        c.CoordinatorCall, id=IDS, inquire=st.builds(c.InquireRequest, gtrid=GTRIDS, bqual=BQUALS, branches=NUMBERS)
    ),
    st.builds(
        c.CoordinatorCall,
        id=IDS,
        register=st.builds(
            c.RegisterRequest,
            resource=RESOURCES,
            instance=INSTANCES,
            address=wire_text,
            kind=wire_text,
            operations=st.lists(wire_text, max_size=3),
        ),
    ),
)
participant_calls = st.one_of(
    st.builds(p.ParticipantCall, id=IDS),
    st.builds(
        p.ParticipantCall,
        id=IDS,
        prepare=st.builds(p.PrepareRequest, gtrid=GTRIDS, bqual=BQUALS, operations=OPERATIONS, timeout_ms=NUMBERS),
    ),
    st.builds(
        p.ParticipantCall,
        id=IDS,
        commit=st.builds(p.ParticipantCommitRequest, gtrid=GTRIDS, bqual=BQUALS, proof=wire_text),
    ),
    st.builds(
        p.ParticipantCall,
        id=IDS,
        commit_one_phase=st.builds(
            p.CommitOnePhaseRequest, gtrid=GTRIDS, bqual=BQUALS, operations=OPERATIONS, timeout_ms=NUMBERS
        ),
    ),
    st.builds(
        p.ParticipantCall,
        id=IDS,
        rollback=st.builds(p.ParticipantRollbackRequest, gtrid=GTRIDS, bqual=BQUALS, proof=wire_text),
    ),
    st.builds(
        p.ParticipantCall, id=IDS, recover=st.builds(p.RecoverRequest, resource=RESOURCES, coordinator_id=wire_text)
    ),
    st.builds(p.ParticipantCall, id=IDS, forget=st.builds(p.ForgetRequest, gtrid=GTRIDS, bqual=BQUALS)),
)
errors = st.builds(t.Error, code=wire_text, message=wire_text, mend=wire_text, grpc_status=NUMBERS)
coordinator_replies = st.one_of(
    st.builds(c.CoordinatorReply, id=IDS),
    st.builds(c.CoordinatorReply, id=IDS, error=errors),
    st.builds(c.CoordinatorReply, id=IDS, begin=st.builds(c.BeginResponse, gtrid=wire_text)),
    st.builds(
        c.CoordinatorReply, id=IDS, commit=st.builds(c.CommitResponse, gtrid=wire_text, outcome=st.integers(0, 99))
    ),
)
participant_replies = st.one_of(
    st.builds(p.ParticipantReply, id=IDS),
    st.builds(p.ParticipantReply, id=IDS, error=errors),
    st.builds(
        p.ParticipantReply, id=IDS, prepare=st.builds(p.PrepareResponse, vote=st.integers(0, 99), reason=wire_text)
    ),
)


def fitting(kind: Callable[..., Any], fixed: dict[str, Any], **lists: tuple[str, st.SearchStrategy[Any]]) -> Any:
    """Columns whose lists are as long as they have to be, or one of them is not."""

    @st.composite
    def columns(draw: st.DrawFn) -> Any:
        count = draw(st.integers(0, 4))
        filled = {name: draw(values) for name, values in fixed.items()}
        each = len(filled.get("resources", "."))
        for name, (how_many, values) in lists.items():
            size = {"rows": count, "cells": count * each, "each": each}[how_many]
            wrong = draw(st.integers(0, 12)) == 0
            filled[name] = draw(st.lists(values, min_size=0 if wrong else size, max_size=4 if wrong else size))
        if "count" in kind.DESCRIPTOR.fields_by_name:  # type: ignore[attr-defined]  # all messages have one
            filled["count"] = draw(st.one_of(st.just(count), st.just(count), NUMBERS))
        return kind(**filled)

    return columns()


FIRST_IDS = st.one_of(st.integers(0, 40), st.sampled_from([2**63, 2**64 - 2, 2**64 - 1]))
PAYLOADS = st.binary(max_size=9)
executes = fitting(
    c.ExecuteColumns,
    {
        "first_id": FIRST_IDS,
        "timeout_ms": NUMBERS,
        "wait": st.integers(0, 9),
        "resources": st.lists(RESOURCES, max_size=3),
    },
    names=("each", st.one_of(wire_text, st.just("write"))),
    gtrids=("rows", GTRIDS),
    payloads=("cells", PAYLOADS),
)
prepares = fitting(
    p.PrepareColumns,
    {"first_id": FIRST_IDS, "timeout_ms": NUMBERS, "bqual": BQUALS, "name": st.one_of(wire_text, st.just("write"))},
    gtrids=("rows", GTRIDS),
    payloads=("rows", PAYLOADS),
)
commits = fitting(
    p.CommitColumns, {"first_id": FIRST_IDS, "bqual": BQUALS}, gtrids=("rows", GTRIDS), proofs=("rows", wire_text)
)
committed = st.builds(
    c.CommittedColumns,
    ids=st.lists(IDS, max_size=4),
    gtrids=st.lists(wire_text, max_size=4),
    results=st.lists(PAYLOADS, max_size=4),
    results_each=NUMBERS,
)
yes = st.builds(
    p.YesColumns,
    ids=st.lists(IDS, max_size=4),
    proofs=st.lists(wire_text, max_size=4),
    results=st.lists(PAYLOADS, max_size=4),
)
done = st.builds(p.DoneColumns, ids=st.lists(IDS, max_size=4))
FRAMES = {
    0: st.builds(
        c.CoordinatorConnectRequest,
        calls=st.lists(coordinator_calls, max_size=5),
        executes=st.lists(executes, max_size=2),
    ),
    1: st.builds(
        p.ParticipantConnectRequest,
        calls=st.lists(participant_calls, max_size=5),
        prepares=st.lists(prepares, max_size=2),
        commits=st.lists(commits, max_size=2),
    ),
    2: st.builds(
        c.CoordinatorConnectResponse,
        replies=st.lists(coordinator_replies, max_size=5),
        committed=st.lists(committed, max_size=2),
    ),
    3: st.builds(
        p.ParticipantConnectResponse,
        replies=st.lists(participant_replies, max_size=5),
        yes=st.lists(yes, max_size=2),
        done=st.lists(done, max_size=2),
    ),
}
