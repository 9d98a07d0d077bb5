"""Frames to all four sides: malformed, cut off, with repeated ids, empty oneofs, unknown fields and hostile names."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.frames.reading import FRAME_DEPTH, MESSAGES_MAX, is_too_dense
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.fuzz.frame_checks import CHECKS
from tests.fuzz.frame_strategies import FRAMES
from tests.fuzz.profile import bounded
from tests.fuzz.texts import LONG

SIDES = pytest.mark.parametrize(
    "side", CHECKS, ids=[check.__name__.removeprefix("check_") for check in CHECKS.values()]
)


@st.composite
def mangled(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes cut off, doubled, followed by unknown fields, or with some of them changed."""
    match draw(st.integers(0, 4)):
        case 0:
            return data[: draw(st.integers(0, len(data)))]
        case 1:
            return data + data
        case 2:
            return data + draw(st.sampled_from([b"\xf8\x01\x01", b"\xfa\x01\x03abc", b"\xfb\x01\xfc\x01"]))
        case 3 if data:
            place = draw(st.integers(0, len(data) - 1))
            return data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]
    return data


@SIDES
@bounded(40)
@given(data=st.data())
def test_whatever_a_frame_holds_each_call_is_answered_once_and_from_the_catalog(side: int, data: st.DataObject) -> None:
    frame = data.draw(FRAMES[side]).SerializeToString()
    asyncio.run(CHECKS[side](data.draw(mangled(frame))))


@SIDES
@bounded(25)
@given(data=st.binary(max_size=64))
def test_bytes_that_are_no_frame_harm_nobody(side: int, data: bytes) -> None:
    asyncio.run(CHECKS[side](data))


@pytest.mark.parametrize("name", LONG, ids=["10 MiB", "quotes", "dots", "é"])
async def test_a_name_of_megabytes_is_refused_in_a_few_words(name: str) -> None:
    execute = c.ExecuteRequest(operations=[t.Operation(resource=name), t.Operation(resource="accounts", name=name)])
    calls = [
        c.CoordinatorCall(id=1, begin=c.BeginRequest(client=name)),
        c.CoordinatorCall(id=2, enlist=c.EnlistRequest(gtrid=name, resource="accounts", instance="a1")),
        c.CoordinatorCall(id=3, register=c.RegisterRequest(resource="a", instance="b", address=name)),
        c.CoordinatorCall(id=4, commit=c.CommitRequest(gtrid=name)),
        c.CoordinatorCall(id=5, execute=execute),
    ]
    for call in calls:
        await CHECKS[0](c.CoordinatorConnectRequest(calls=[call]).SerializeToString())
    prepare = p.ParticipantCall(id=1, prepare=p.PrepareRequest(gtrid=name, bqual=name))
    forget = p.ParticipantCall(id=2, forget=p.ForgetRequest(gtrid="k3v9q2xw-1-0-0", bqual=name))
    await CHECKS[1](p.ParticipantConnectRequest(calls=[prepare, forget]).SerializeToString())
    error = p.ParticipantReply(id=1, error=t.Error(code=name, message=name))
    await CHECKS[3](p.ParticipantConnectResponse(replies=[error]).SerializeToString())


@bounded(30)
@given(frame=FRAMES[0])
def test_no_honest_frame_is_taken_for_a_dense_one(frame: c.CoordinatorConnectRequest) -> None:
    assert len(frame.calls) <= MESSAGES_MAX
    assert not is_too_dense(frame.SerializeToString(), FRAME_DEPTH)
