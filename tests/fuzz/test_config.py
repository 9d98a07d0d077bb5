"""Settings of coordinator and participant, from flags, the environment and files, with anything at all in them."""

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.config import CoordinatorConfig
from participant.config import ParticipantOptions
from tests.fuzz.config_checks import check_file, check_options, check_settings
from tests.fuzz.profile import bounded
from tests.fuzz.texts import LONG, any_text

NAMES = sorted(set(CoordinatorConfig.model_fields) - {"config"})
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 10**400, 1e308, float("inf"), float("nan"), True, False]),
)
SIZES = st.sampled_from(["1MiB", "1 parsec", "9" * 400 + "b", "1e400b", "-1b", "64MiB"])
ADDRESSES = st.sampled_from(["127.0.0.1:0", "[::1]:1", "0.0.0.0:7400", "h:٣", "h:99999", ":1", "[]:1", "127.0.0.1:1\n"])
VALUES = st.one_of(any_text, NUMBERS, SIZES, ADDRESSES, st.none(), st.lists(any_text, max_size=2))
TOML = st.one_of(
    st.sampled_from(
        [
            "[" * 5_000,
            "a = " + "[" * 5_000,
            "branches_max = " + "9" * 5_000,
            "branches_max = 0x" + "f" * 5_000,
            "branches_max = 1979-05-27",
            'log = "a\\u0000b"',
            'participants = {accounts = "h:1", ledger = 7}',
            "participants = [1]",
            'admins = [[["x"]]]',
            "retention_h = 1e308",
            "retention_h = inf",
            "payload_bytes_max = true",
            'config = "other.toml"',
            "address.host = 1",
            "'' = 1",
            "\ufeffbranches_max = 1",
        ]
    ),
    st.builds("{} = {}".format, st.sampled_from(NAMES), st.one_of(st.integers().map(str), st.floats().map(str))),
    st.text(max_size=60),
)


@bounded(150)
@given(given=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3))
def test_flags(given: dict[str, Any]) -> None:
    check_settings(given, {})


@bounded(100)
@given(
    given=st.dictionaries(
        st.sampled_from([name.upper() for name in NAMES]),
        any_text.map(
            lambda text: text.replace("\0", "").encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
        ),
        max_size=3,
    )
)
def test_the_environment(given: dict[str, str]) -> None:
    check_settings({}, given)


@bounded(120)
@given(st.one_of(TOML.map(lambda text: text.encode()), st.binary(max_size=40)))
def test_a_file(data: bytes) -> None:
    check_file(data)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", LONG, ids=["10 MiB", "quotes", "dots", "é"])
def test_a_value_of_megabytes_is_refused_in_a_few_words(name: str, text: str) -> None:
    taken = check_settings({name: text}, {})
    assert taken is None or name in {"log", "audit_trail", "trace", "admins", "config"}


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "", "/", "/dev/null/x", "x" * 5_000])
def test_a_path_to_a_file_of_settings_that_is_none(path: str) -> None:
    assert check_settings({"config": path}, {}) is None or path == ""


OPTIONS = sorted(field.name for field in fields(ParticipantOptions) if field.name != "coordinator_names")


@bounded(150)
@given(given=st.dictionaries(st.sampled_from(OPTIONS), st.one_of(NUMBERS, any_text, st.none()), max_size=3))
def test_a_participant_s_options(given: dict[str, Any]) -> None:
    check_options(given)
