"""The coordinator's settings: one frozen, validated object per process, read in one place.

A setting is taken from the first of these that names it:

    1. a flag                  handfast serve --retention-h 48
    2. the environment         HANDFAST_RETENTION_H=48
    3. a TOML file             retention_h = 48      (--config FILE, HANDFAST_CONFIG, or ./handfast.toml when it exists)
    4. the default below

Whatever is wrong is found here, before a log is opened or a port is bound, and named by the setting: a value of the
wrong kind, a name that is no setting, two settings that contradict each other. Units end the names.

This module lies beside the layers: ``coordinator.rpc`` and ``coordinator.cli`` import it, the layers below get what
they need as arguments.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from handfast.catalog import HandfastFault
from handfast.xid import COORDINATOR_ID_LENGTH, MalformedName, check_resource

DEFAULT_FILE = Path("handfast.toml")
"""Read from the working directory when no other file is named, and when it is there."""

ENV_PREFIX = "HANDFAST_"
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""As in ``handfast.frames``, which is not imported here because it loads gRPC."""

UINT32_MAX_S = (2**32 - 1) / 1000
"""Timeouts travel as milliseconds in 32 bits."""

SHOWN_LENGTH_MAX = 200
"""A longer value is not repeated in the error about it."""

RETENTION_H_MAX = 100 * 365 * 24
"""A hundred years, so that the times computed from it stay times."""

OFF = "off"
"""As ``frame_address``: no frame port."""

HOST_NAME = "address"
"""As ``participant_name``: a participant's certificate must hold the host in its address, and proves no resource."""

_PARTICIPANT_NAME = re.compile(r"[a-z0-9.-]*\{resource\}[a-z0-9.-]*")
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[ipv6]:port``; the brackets are dropped.

    Raises:
        ValueError: it is neither.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"]) > 65535:
        raise ValueError(f"{address!r} is not host:port")
    return found["host"].strip("[]"), int(found["port"])


def is_loopback(address: str) -> bool:
    """Tell whether only this machine can reach the address; an unknown host name counts as reachable by others."""
    host, _ = split_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_address(address: str) -> str:
    split_address(address)
    return address


def _participants(given: object) -> object:
    """Accept a mapping (TOML), a list of ``name=host:port`` (flags) or the same with commas (environment)."""
    if isinstance(given, str):
        given = [item.strip() for item in given.split(",") if item.strip()]
    if not isinstance(given, list | tuple):
        return given
    found: dict[str, str] = {}
    for item in given:
        name, equals, address = str(item).partition("=")
        if not equals:
            raise ValueError(f"{item!r} is not name=host:port")
        if name in found:
            raise ValueError(f"{name!r} is given twice")
        found[name] = address
    return found


def _names(given: object) -> object:
    """Accept a list (TOML, flags) or names with commas (environment)."""
    return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else given


def _checked_participants(participants: Mapping[str, str]) -> Mapping[str, str]:
    for name, address in participants.items():
        try:
            check_resource(name)
        except MalformedName:
            raise ValueError(f"{name!r} is not a resource name ([a-z][a-z0-9_-]{{0,31}})") from None
        split_address(address)
    return MappingProxyType(dict(participants))


Address = Annotated[str, AfterValidator(_checked_address)]
Participants = Annotated[
    Mapping[str, str],
    BeforeValidator(_participants),
    AfterValidator(_checked_participants),
    PlainSerializer(dict),
]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=UINT32_MAX_S, allow_inf_nan=False)]


def _via(given: object) -> object:
    """Accept a mapping (TOML), a list of ``host:port=host:port`` (flags) or the same with commas (environment)."""
    if isinstance(given, str):
        given = [item.strip() for item in given.split(",") if item.strip()]
    if not isinstance(given, list | tuple):
        return given
    return dict(_via_pair(str(item)) for item in given)


def _via_pair(item: str) -> tuple[str, str]:
    dialed, equals, where = item.partition("=")
    if not equals:
        raise ValueError(f"{item!r} is not host:port=host:port")
    return dialed, where


def _checked_via(via: Mapping[str, str]) -> Mapping[str, str]:
    for dialed, where in via.items():
        split_address(dialed)
        split_address(where)
    return MappingProxyType(dict(via))


def _checked_frame_address(address: str) -> str:
    return address if address in {"", OFF} else _checked_address(address)


FrameAddress = Annotated[str, AfterValidator(_checked_frame_address)]
FrameVia = Annotated[Mapping[str, str], BeforeValidator(_via), AfterValidator(_checked_via), PlainSerializer(dict)]


class CoordinatorConfig(BaseModel):
    """Every setting of one coordinator process.

    Raises:
        HandfastFault: SETTING_INVALID, with the setting's name; ADDRESS_NOT_LOOPBACK.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    config: Path | None = Field(None, description="TOML file to read settings from; ./handfast.toml when it exists")
    address: Address = Field("127.0.0.1:7400", description="host:port to listen on; port 0 takes a free one")
    frame_address: FrameAddress = Field(
        "", description="host:port for frames beside gRPC; off: none; else address's host and any free port"
    )
    frame_via: FrameVia = Field(
        default_factory=lambda: MappingProxyType({}),
        description="Where who dialed a proxy finds the frame port, as dialed=host:port; may be repeated",
    )
    log: Path = Field(Path("handfast.db"), description="File of the decision log; made when it is not there")
    coordinator_id: str | None = Field(
        None,
        pattern=rf"^[a-z0-9]{{{COORDINATOR_ID_LENGTH}}}$",
        description="Refuse to start on a log that belongs to another coordinator than this",
    )
    tls_cert: Path | None = Field(None, description="File with the server's certificate chain (PEM)")
    tls_key: Path | None = Field(None, description="File with the certificate's private key (PEM)")
    tls_client_ca: Path | None = Field(
        None, description="File with the authorities (PEM) of clients; a client must then show a certificate"
    )
    participant_ca: Path | None = Field(
        None, description="File with the authorities (PEM) of participants' servers; speaks TLS to them"
    )
    participant_cert: Path | None = Field(
        None, description="File with the certificate chain (PEM) shown to participants; else tls_cert is"
    )
    participant_key: Path | None = Field(None, description="File with that certificate's private key (PEM)")
    participant_name: str = Field(
        "{resource}.participant.handfast",
        description="Name that a participant's certificate must hold, {resource} being its resource; address: the host",
    )
    tokens_file: Path | None = Field(
        None, description="File with bearer tokens, by which callers say who they are where TLS ends before"
    )
    admins: Names = Field(
        (), description="Name in a certificate that makes an operator, besides spiffe://…/admin/NAME; may be repeated"
    )
    audit_trail: Path | None = Field(
        None, description="File to which what operators do, and who is refused, is appended; else LOG.audit.jsonl"
    )
    trace: Path | None = Field(
        None, description="File to which each protocol event is appended, for debugging; %p in it becomes the pid"
    )
    insecure: bool = Field(False, description="Allow an address that other machines reach, without TLS")
    default_timeout_s: Seconds = Field(30, description="Time to decide for a transaction that names none, seconds")
    timeout_max_s: Seconds = Field(3600, description="Longest time to decide that a client may ask for, seconds")
    apply_wait_s: float = Field(
        5, ge=0, le=UINT32_MAX_S, description="Longest that Commit waits for all branches to apply, seconds"
    )
    branches_max: Count = Field(64, description="Most branches of one transaction")
    open_transactions_max: Count = Field(100_000, description="Most transactions open at once")
    open_transactions_per_client_max: Count = Field(
        20_000, description="Most transactions of one client open at once, when it has a name"
    )
    participants_max: Count = Field(10_000, description="Most participant processes known at once")
    streams_per_peer_max: Count = Field(
        256, description="Most batched streams of one identity at once, or of one host where nobody has to say who"
    )
    messages_per_s_max: Count = Field(
        200_000, description="Most messages a second on one stream; Commit and Rollback are never refused"
    )
    share_max: float = Field(
        0.15, gt=0, le=1, description="Largest share of the coordinator's time for one caller while others want some"
    )
    calls_per_stream_max: Count = Field(
        4_096, description="Most calls on one stream whose answers are not written; no more are read until some are"
    )
    bytes_per_stream_max: Annotated[ByteSize, Field(ge=2**20, le=2**40)] = Field(
        ByteSize(64 * 2**20), description="Most bytes that such calls may have come in, or with a unit: 64MiB"
    )
    calls_per_connection_max: Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(
        1_024, description="Most unary calls and streams at once on one connection; more wait at their sender"
    )
    connections_max: Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(
        10_000, description="Most connections at once, those included that are not finished; more are closed"
    )
    frame_bytes_max: Annotated[ByteSize, Field(ge=64 * 1024, le=2**30)] = Field(
        ByteSize(MESSAGE_BYTES_MAX), description="Largest gRPC message, so frame, that is taken, bytes"
    )
    keepalive_s: Seconds = Field(20, description="Idle time after which a caller is asked whether it is there, seconds")
    connection_age_max_s: float = Field(
        0, ge=0, le=UINT32_MAX_S, description="How old a connection gets before it is made anew, seconds; 0: any age"
    )
    payload_bytes_max: Annotated[ByteSize, Field(ge=1, le=2**30)] = Field(
        ByteSize(4 * 2**20), description="Largest payload of one operation, bytes, or with a unit: 4MiB"
    )
    retention_h: float = Field(
        24, gt=0, le=RETENTION_H_MAX, description="How long the log keeps an ended commit, hours"
    )
    sweep_interval_s: Seconds = Field(30, description="Time between two sweeps for orphaned branches, seconds")
    retry_base_s: Seconds = Field(0.05, description="Delay before the first retry; it doubles from there, seconds")
    retry_cap_s: Seconds = Field(30, description="Longest delay between two retries, seconds")
    block_lifetime_s: Seconds = Field(600, description="How long a client may draw gtrids from one block, seconds")
    finished_kept_max: int = Field(10_000, ge=0, description="Most ended transactions kept in memory for reports")
    stop_grace_s: float = Field(
        30, ge=0, le=UINT32_MAX_S, description="Longest that a stop waits for decided transactions, seconds"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level of what is logged")
    log_format: Literal["text", "json"] = Field("text", description="Form of a log line on standard error")
    participants: Participants = Field(
        default_factory=lambda: MappingProxyType({}),
        description="Participant that never registers, as name=host:port; may be repeated",
    )

    def __init__(self, **flags: Any) -> None:
        try:
            super().__init__(**_gathered(flags, type(self).model_fields))
        except ValidationError as invalid:
            raise _fault(invalid) from None

    @model_validator(mode="before")
    @classmethod
    def _is_plain(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Refuse what would be taken for something else: true for 1, and a text that the system would cut at a NUL."""
        for setting, value in given.items():
            if isinstance(value, bool) and setting != "insecure":
                raise _invalid(setting, f"it is {str(value).lower()}, which is neither a number nor a text")
            if isinstance(value, str | Path) and "\0" in str(value):
                raise _invalid(setting, "there is a NUL in it")
        return given

    @property
    def tls(self) -> bool:
        """Whether the address speaks TLS."""
        return self.tls_cert is not None

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if self.tls_cert is None and self.tls_key is not None:
            raise _invalid("tls_cert", "tls_key is given without it")
        if self.tls_key is None and self.tls_cert is not None:
            raise _invalid("tls_key", "tls_cert is given without it")
        if self.tls_client_ca is not None and not self.tls:
            raise _invalid("tls_client_ca", "it needs tls_cert and tls_key")
        for setting in ("tls_cert", "tls_key", "tls_client_ca", "tokens_file"):
            _check_readable(setting, getattr(self, setting))
        return self

    @model_validator(mode="after")
    def _tls_to_participants_is_whole(self) -> Self:
        if (self.participant_cert is None) != (self.participant_key is None):
            missing = "participant_cert" if self.participant_cert is None else "participant_key"
            raise _invalid(missing, "participant_cert and participant_key go together")
        if self.participant_cert is not None and self.participant_ca is None:
            raise _invalid("participant_cert", "it needs participant_ca")
        if self.participant_name != HOST_NAME and not _PARTICIPANT_NAME.fullmatch(self.participant_name):
            raise _invalid("participant_name", f"{self.participant_name!r} is not a DNS name with {{resource}} in it")
        for setting in ("participant_ca", "participant_cert", "participant_key"):
            _check_readable(setting, getattr(self, setting))
        return self

    @property
    def trail_file(self) -> Path:
        """Where the audit trail is."""
        return self.audit_trail or self.log.with_name(self.log.name + ".audit.jsonl")

    @property
    def certified_name(self) -> str:
        """What a participant's certificate must hold; empty means the host in its address."""
        return "" if self.participant_name == HOST_NAME else self.participant_name

    @model_validator(mode="after")
    def _address_is_safe(self) -> Self:
        if self.tls and self.insecure:
            raise _invalid("insecure", "tls_cert is given too; choose one")
        for address in (self.address, self.frame_address):
            named = address not in {"", OFF}
            if named and not (self.tls or self.insecure or is_loopback(address)):
                raise HandfastFault("ADDRESS_NOT_LOOPBACK", address=address)
        return self

    @model_validator(mode="after")
    def _times_agree(self) -> Self:
        if self.default_timeout_s > self.timeout_max_s:
            raise _invalid("default_timeout_s", f"{self.default_timeout_s:g} is more than timeout_max_s")
        if self.retry_base_s > self.retry_cap_s:
            raise _invalid("retry_base_s", f"{self.retry_base_s:g} is more than retry_cap_s")
        # A gtrid carries the time at which its block was handed out, and one older than the retention is answered
        # UNKNOWN: a transaction must not reach that age before it is decided.
        oldest_s = self.block_lifetime_s + self.timeout_max_s
        if self.retention_h * 3600 < oldest_s:
            raise _invalid(
                "retention_h",
                f"{self.retention_h:g} h is less than block_lifetime_s + timeout_max_s, {oldest_s:g} s: "
                "a transaction could outlive the log's memory of it",
            )
        return self


def _invalid(setting: str, problem: str) -> HandfastFault:
    return HandfastFault("SETTING_INVALID", setting=setting, problem=problem)


def _fault(invalid: ValidationError) -> HandfastFault:
    """Name the first setting that is wrong, in our words where pydantic's don't help."""
    error = invalid.errors()[0]
    setting = ".".join(str(part) for part in error["loc"]) or "config"
    if error["type"] == "extra_forbidden":
        return _invalid(setting, "there is no such setting")
    problem = error["msg"].removeprefix("Value error, ")
    if error["type"] == "string_pattern_mismatch":
        problem = f"it must be {COORDINATOR_ID_LENGTH} lower-case letters and digits"
    shown = _shown(error.get("input"))
    given = f" (given: {shown})" if shown and shown not in problem else ""
    return _invalid(setting, problem[:1].lower() + problem[1:] + given)


def _shown(given: object) -> str:
    """What was given, where that is short; empty otherwise."""
    try:
        shown = "" if isinstance(given, Mapping | list) else repr(given)
    except ValueError:
        return ""  # a number of thousands of digits
    return shown if len(shown) <= SHOWN_LENGTH_MAX else ""


def _check_readable(setting: str, path: Path | None) -> None:
    if path is None:
        return
    try:
        path.open("rb").close()
    except OSError as error:
        raise _invalid(setting, f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise _invalid(setting, str(error)) from None  # a NUL in it


def _gathered(flags: Mapping[str, Any], settings: Collection[str]) -> dict[str, Any]:
    """What was given for each setting, by the strongest source that names it: flags, environment, file.

    Written out here because pydantic-settings, which can do this and much else, takes longer to import than pydantic
    and gRPC together, and a coordinator starts while branches wait in doubt.
    """
    variables = {name.lower(): value for name, value in os.environ.items() if value}
    prefix = ENV_PREFIX.lower()
    environment = {name: variables[prefix + name] for name in settings if prefix + name in variables}
    named = flags.get("config") or environment.get("config")
    return _of_file(Path(named) if named else None) | environment | dict(flags)


def _of_file(named: Path | None) -> dict[str, Any]:
    """The TOML file's settings; a file that was named must be there."""
    path = named or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    if path is None:
        return {}
    if named is not None:
        _check_readable("config", named)
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        # ValueError: no TOML, no UTF-8, or a number of thousands of digits.
        raise _invalid("config", f"{path} is not a TOML file: {error}") from None
    if "config" in given:
        raise _invalid("config", f"{path} can't name another file")
    return given
