"""Settings from anywhere: each is taken, or refused as SETTING_INVALID with the setting's name."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from coordinator.config import ENV_PREFIX, CoordinatorConfig, is_loopback, split_address
from coordinator.rpc.server import driver_options, stream_limits
from handfast.catalog import HandfastFault
from participant.config import ParticipantOptions

REFUSALS = {"SETTING_INVALID", "ADDRESS_NOT_LOOPBACK"}


def check_settings(flags: Mapping[str, Any], environment: Mapping[str, str]) -> CoordinatorConfig | None:
    """Read a coordinator's settings.

    Returns:
        Them; None when they were refused.

    Raises:
        AssertionError: they were refused in another way, or taken and are of no use.
    """
    with patch.dict(os.environ, {ENV_PREFIX + name: value for name, value in environment.items()}):
        try:
            config = CoordinatorConfig(**flags)
        except HandfastFault as refused:
            _check_refusal(refused)
            return None
    _check_useful(config)
    return config


def _check_refusal(refused: HandfastFault) -> None:
    assert refused.code in REFUSALS
    assert len(str(refused)) < 4_000
    str(refused).encode("utf-8", "backslashreplace")


def _check_useful(config: CoordinatorConfig) -> None:
    """What every start computes from them can be computed."""
    driver_options(config)
    stream_limits(config)
    split_address(config.address)
    assert config.insecure or config.tls or is_loopback(config.address)
    for path in (config.log, config.trail_file):
        assert "\0" not in str(path)
    milliseconds = (config.retention_h * 3_600, config.connection_age_max_s, config.keepalive_s, config.timeout_max_s)
    assert all(0 <= int(seconds * 1_000) < 2**63 for seconds in milliseconds)


def check_file(data: bytes) -> CoordinatorConfig | None:
    """Read a coordinator's settings from a file of these bytes."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        Path(file.name).write_bytes(data)
        return check_settings({"config": file.name}, {})


def check_options(given: Mapping[str, Any]) -> ParticipantOptions | None:
    """Make a participant's options.

    Returns:
        Them; None when they were refused.

    Raises:
        AssertionError: they were refused in another way, or taken and are of no use.
    """
    try:
        options = ParticipantOptions(**given)
    except HandfastFault as refused:
        _check_refusal(refused)
        return None
    for name in given:
        value = getattr(options, name)
        if name in ("frame_address", "frame_via"):
            assert isinstance(value, str | Mapping)
            continue
        assert isinstance(value, tuple) or 0 <= value * (1000 if name.endswith("_s") else 1) <= 2**31
    return options


def check(data: bytes) -> None:
    """Bytes from a fuzzer: the first chooses file or environment."""
    if data and data[0] % 2:
        parts = data[1:].decode("utf-8", "surrogateescape").replace("\0", "").split("\n")
        pairs = (part.partition("=") for part in parts)
        names = set(CoordinatorConfig.model_fields) - {"config"}
        check_settings({}, {name.upper(): value for name, _, value in pairs if name in names})
    else:
        check_file(data[1:])
