"""The settings: where each is taken from, and what is refused before anything starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from coordinator.config import CoordinatorConfig, is_loopback, split_address
from handfast.catalog import HandfastFault
from tests.architecture.source_tree import REPOSITORY


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no setting from the machine that runs the tests."""
    monkeypatch.chdir(tmp_path)
    for setting in CoordinatorConfig.model_fields:
        monkeypatch.delenv(f"HANDFAST_{setting.upper()}", raising=False)
    return tmp_path


def refusal(**flags: object) -> HandfastFault:
    """What the settings are refused with."""
    with pytest.raises(HandfastFault) as refused:
        CoordinatorConfig(**flags)
    return refused.value


def test_the_defaults_suit_a_first_start() -> None:
    config = CoordinatorConfig()
    assert (config.address, config.log, config.coordinator_id) == ("127.0.0.1:7400", Path("handfast.db"), None)
    assert (config.tls, config.insecure, config.participants) == (False, False, {})
    assert (config.default_timeout_s, config.timeout_max_s, config.apply_wait_s) == (30, 3600, 5)
    assert (config.branches_max, config.open_transactions_max, config.payload_bytes_max) == (64, 100_000, 4 * 2**20)
    assert (config.retention_h, config.sweep_interval_s, config.stop_grace_s) == (24, 30, 30)
    assert (config.retry_base_s, config.retry_cap_s, config.block_lifetime_s) == (0.05, 30, 600)
    assert (config.finished_kept_max, config.log_level, config.log_format) == (10_000, "info", "text")


def test_each_source_is_weaker_than_the_one_before(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> int:
        return CoordinatorConfig().branches_max

    assert found() == 64
    (here / "handfast.toml").write_text("branches_max = 1\n")
    assert found() == 1
    monkeypatch.setenv("HANDFAST_BRANCHES_MAX", "2")
    assert found() == 2
    assert CoordinatorConfig(branches_max=3).branches_max == 3


def test_a_named_file_is_read_instead_of_the_one_in_the_working_directory(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "handfast.toml").write_text("branches_max = 1\nretention_h = 100\n")
    (here / "mine.toml").write_text("branches_max = 2\n")
    named = CoordinatorConfig(config="mine.toml")
    assert (named.branches_max, named.retention_h) == (2, 24)
    monkeypatch.setenv("HANDFAST_CONFIG", "mine.toml")
    assert CoordinatorConfig().branches_max == 2
    assert CoordinatorConfig(config="handfast.toml").branches_max == 1


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFAST_BRANCHES_MAX", "")
    assert CoordinatorConfig().branches_max == 64


def test_nothing_changes_a_setting_afterwards() -> None:
    config = CoordinatorConfig(participants={"accounts": "h:1"})
    with pytest.raises(ValidationError, match="frozen"):
        config.branches_max = 1
    assert not hasattr(config.participants, "__setitem__")


@pytest.mark.parametrize("given", ["a=h:1, b=[::1]:2", ["a=h:1", "b=[::1]:2"], {"a": "h:1", "b": "[::1]:2"}])
def test_participants_come_as_text_a_list_or_a_table(given: object) -> None:
    assert CoordinatorConfig(participants=given).participants == {"a": "h:1", "b": "[::1]:2"}


def test_participants_come_from_the_environment_and_from_the_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "handfast.toml").write_text('[participants]\nledger = "h:2"\n')
    assert CoordinatorConfig().participants == {"ledger": "h:2"}
    monkeypatch.setenv("HANDFAST_PARTICIPANTS", "accounts=h:1")
    assert CoordinatorConfig().participants == {"accounts": "h:1"}


def test_a_payload_may_be_given_with_its_unit() -> None:
    assert CoordinatorConfig(payload_bytes_max="64KiB").payload_bytes_max == 65_536


@pytest.mark.parametrize(
    ("flags", "setting", "problem"),
    [
        ({"address": "7400"}, "address", "is not host:port"),
        ({"address": "127.0.0.1:70000"}, "address", "is not host:port"),
        ({"coordinator_id": "K3V9Q2XW"}, "coordinator_id", "8 lower-case letters and digits"),
        ({"default_timeout_s": 0}, "default_timeout_s", "greater than 0"),
        ({"default_timeout_s": "soon"}, "default_timeout_s", "valid number"),
        ({"timeout_max_s": 5_000_000}, "timeout_max_s", "less than or equal to"),
        ({"retry_cap_s": "inf"}, "retry_cap_s", "finite number"),
        ({"branches_max": 0}, "branches_max", "greater than or equal to 1"),
        ({"payload_bytes_max": "2GiB"}, "payload_bytes_max", "less than or equal to"),
        ({"log_level": "loud"}, "log_level", "'debug', 'info', 'warning' or 'error'"),
        ({"log_format": "xml"}, "log_format", "'text' or 'json'"),
        ({"participants": ["accounts"]}, "participants", "'accounts' is not name=host:port"),
        ({"participants": ["a=h:1", "a=h:2"]}, "participants", "'a' is given twice"),
        ({"participants": {"Accounts": "h:1"}}, "participants", "'Accounts' is not a resource name"),
        ({"participants": {"accounts": "h"}}, "participants", "'h' is not host:port"),
        ({"branch_max": 5}, "branch_max", "there is no such setting"),
        ({"tls_cert": "cert.pem"}, "tls_key", "tls_cert is given without it"),
        ({"tls_key": "key.pem"}, "tls_cert", "tls_key is given without it"),
        ({"tls_client_ca": "ca.pem"}, "tls_client_ca", "it needs tls_cert and tls_key"),
        ({"tls_cert": "cert.pem", "tls_key": "absent.pem"}, "tls_key", "absent.pem can't be read: No such file"),
        ({"tls_cert": "cert.pem", "tls_key": "key.pem", "insecure": True}, "insecure", "choose one"),
        ({"default_timeout_s": 3601}, "default_timeout_s", "more than timeout_max_s"),
        ({"retry_base_s": 31}, "retry_base_s", "more than retry_cap_s"),
        ({"retention_h": 1}, "retention_h", "less than block_lifetime_s + timeout_max_s"),
        ({"config": "absent.toml"}, "config", "absent.toml can't be read: No such file"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(
    here: Path, flags: Mapping[str, object], setting: str, problem: str
) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (here / name).touch()
    fault = refusal(**flags)
    assert fault.code == "SETTING_INVALID"
    assert f"The setting {setting} is not valid: " in fault.message
    assert problem in fault.message


@pytest.mark.parametrize(
    ("text", "setting", "problem"),
    [
        ("branches_max = \n", "config", "handfast.toml is not a TOML file"),
        ("branch_max = 5\n", "branch_max", "there is no such setting"),
        ("branches_max = 0\n", "branches_max", "greater than or equal to 1"),
        ('config = "other.toml"\n', "config", "can't name another file"),
    ],
)
def test_a_wrong_file_is_refused_by_the_setting_in_it(here: Path, text: str, setting: str, problem: str) -> None:
    (here / "handfast.toml").write_text(text)
    fault = refusal()
    assert f"The setting {setting} is not valid: " in fault.message
    assert problem in fault.message


def test_a_wrong_variable_is_refused_by_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFAST_INSECURE", "perhaps")
    assert "The setting insecure is not valid" in refusal().message


@pytest.mark.parametrize("address", ["0.0.0.0:7400", "10.0.0.5:7400", "[::]:7400", "coordinator.internal:7400"])
def test_an_address_that_others_reach_needs_tls_or_a_word_that_it_is_meant(here: Path, address: str) -> None:
    for name in ("cert.pem", "key.pem"):
        (here / name).touch()
    fault = refusal(address=address)
    assert fault.code == "ADDRESS_NOT_LOOPBACK"
    assert address in fault.message
    assert CoordinatorConfig(address=address, insecure=True).address == address
    assert CoordinatorConfig(address=address, tls_cert="cert.pem", tls_key="key.pem").tls


@pytest.mark.parametrize("address", ["127.0.0.1:7400", "127.9.9.9:0", "localhost:7400", "[::1]:7400"])
def test_an_address_of_this_machine_needs_nothing(address: str) -> None:
    assert is_loopback(address)
    assert CoordinatorConfig(address=address).address == address


def test_an_address_is_split_into_host_and_port() -> None:
    assert split_address("[::1]:7400") == ("::1", 7400)
    assert split_address("db-1.internal:80") == ("db-1.internal", 80)


def test_reading_the_settings_loads_nothing_heavy() -> None:
    """Every command reads this module's defaults; the server's libraries wait until a server runs."""
    heavy = {"grpc", "google.protobuf", "psycopg", "sqlite3", "cyclopts", "rich"}
    script = f"import sys, coordinator.config; print(sorted({heavy} & sys.modules.keys()))"
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, cwd=REPOSITORY
    )
    assert finished.stdout.strip() == "[]"
