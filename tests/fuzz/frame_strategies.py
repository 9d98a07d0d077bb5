"""Frames as Hypothesis makes them: of the right kind, with whatever may stand in their fields."""

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
FRAMES = {
    0: st.builds(lambda calls: c.CoordinatorConnectRequest(calls=calls), st.lists(coordinator_calls, max_size=5)),
    1: st.builds(lambda calls: p.ParticipantConnectRequest(calls=calls), st.lists(participant_calls, max_size=5)),
    2: st.builds(
        lambda replies: c.CoordinatorConnectResponse(replies=replies), st.lists(coordinator_replies, max_size=5)
    ),
    3: st.builds(
        lambda replies: p.ParticipantConnectResponse(replies=replies), st.lists(participant_replies, max_size=5)
    ),
}
