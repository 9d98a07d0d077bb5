"""What `import participant` offers a service, exactly, and that the advice on using it has the right order."""

import inspect

import handfast.frames
import participant
from handfast.catalog import HandfastFault


def test_the_public_api_is_exactly_this_and_documented() -> None:
    names = {"HandfastFault", "Participant", "ParticipantOptions", "ResourceManager", "interceptors", "server_options"}
    assert set(participant.__all__) == names
    assert all(inspect.getdoc(getattr(participant, name)) for name in names)
    assert participant.server_options is handfast.frames.server_options


def test_whoever_finds_the_participant_closed_is_told_the_order_that_works() -> None:
    mend = HandfastFault("PARTICIPANT_CLOSED", bqual="ledger.one").mend
    steps = [mend.index(step) for step in ("server.start()", "`async with`", "leave it", "server.stop()")]
    assert steps == sorted(steps)
