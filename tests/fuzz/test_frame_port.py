"""Both ends of a frame connection against any bytes, and against such as are nearly right."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.frame_port_checks import FRAME_BYTES_MAX, GREETING, PING, check_connection, check_offer
from tests.fuzz.profile import bounded

LENGTHS = st.one_of(
    st.integers(0, 2**32 - 1), st.sampled_from([0, 1, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, PING, PING - 1])
)
PARTS = st.one_of(
    st.binary(max_size=FRAME_BYTES_MAX).map(lambda frame: len(frame).to_bytes(4, "big") + frame),
    LENGTHS.map(lambda length: length.to_bytes(4, "big")),
    st.binary(max_size=8),
)
TALK = st.lists(PARTS, max_size=8).map(b"".join)
HOSTS = st.one_of(st.just(""), st.text(max_size=12), st.sampled_from(["127.0.0.1", "[::1]", "[", "..", "a" * 80]))

NAMES = st.one_of(
    st.just(""),
    st.text(max_size=120),
    st.from_regex(r"handfast-[0-9]{1,5}-[0-9a-f]{32}", fullmatch=True),
    st.from_regex(r"\x00?/?handfast-\d{0,6}-[0-9a-fA-F]{30,34}\n?", fullmatch=True),
)


@bounded(200)
@given(size=st.integers(0, 63), greeting=st.sampled_from([GREETING, GREETING[:-1], b"A greeting", b""]), talk=TALK)
def test_what_comes_out_is_what_a_model_reads(size: int, greeting: bytes, talk: bytes) -> None:
    asyncio.run(check_connection(bytes([size]) + greeting + talk))


@bounded(60)
@given(
    host=HOSTS,
    port=st.one_of(st.integers(-1, 70_000).map(str), st.text(max_size=3)),
    ticket=st.one_of(st.binary(min_size=32, max_size=32).map(bytes.hex), st.text(max_size=12)),
    name=NAMES,
)
def test_an_offer_that_leads_nowhere_leaves_the_frames_to_grpc(host: str, port: str, ticket: str, name: str) -> None:
    port = port if not port.isdigit() or int(port) > 65_535 else "1"
    asyncio.run(check_offer(f"{host}:{port} {ticket}\t{name}".encode()))
