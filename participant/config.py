"""The options of one participant: named defaults, checked once, then fixed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from handfast.catalog import HandfastFault

OFF = "off"
"""As ``frame_address``: no frame port."""

_NO_NUMBERS = {"coordinator_names", "frame_address", "frame_via"}

_HOST_PORT = re.compile(r".+:[0-9]{1,5}")

MS_MAX = 2**31 - 1
"""What Postgres takes for a time in milliseconds: some 24 days."""


@dataclass(frozen=True, slots=True)
class ParticipantOptions:
    """How one participant behaves. Every default is meant to be kept.

    Args:
        connections_max: connections for work, so also how many branches may be at work at once.
        finish_connections_max: connections for phase two, recovery and reports. Work can never take them: a branch that
            waits for a lock must not keep out the COMMIT PREPARED that would free it. While no work connection is in
            use, COMMIT PREPARED and ROLLBACK PREPARED borrow the idle one that was given back last, which for a lone
            branch is the one that prepared it; never when connections_max is 1.
        connection_wait_s: how long a branch waits for a free connection, in seconds.
        connect_timeout_s: how long one attempt to connect to the database may take, in seconds.
        finish_wait_s: how long phase two waits for a connection and for one statement, in seconds; the coordinator
            repeats what did not finish.
        lock_timeout_s: how long a statement in a branch waits for a lock, in seconds, and never past the deadline. This
            is what ends a deadlock across databases, which no server can see.
        idle_margin_s: how long past its deadline the database itself keeps the idle session of a branch, in seconds;
            only for a process that hangs, for a living one rolls back at the deadline.
        alive_check_ms: how often the database checks, during a statement, that the client is still there, in
            milliseconds (client_connection_check_interval); 0 leaves it off.
        keepalive_s: after how many idle seconds TCP asks whether the database is still there.
        timeout_default_s: the time a branch has when the caller named none, in seconds.
        enlist_timeout_s: how long enlisting at the coordinator may take, retries included, in seconds.
        register_interval_s: how often the registration is repeated, in seconds.
        retry_first_s: the first delay before something is tried again, in seconds; it doubles each time.
        retry_max_s: the longest such delay, in seconds.
        recovery_interval_s: how often prepared branches are looked for, in seconds.
        inquire_after_s: how old a prepared branch is when the coordinator is asked about it, in seconds; the branches
            found at start are asked about at once.
        memory_count_max: how many ended branches are remembered, so that duplicates get the first answer.
        memory_age_s: for how long, in seconds.
        close_wait_s: how long closing waits for what is under way, in seconds; for operations no longer than one.
        payload_bytes_max: the largest payload of an operation, in bytes.
        coordinator_names: names in a certificate that make a coordinator, besides ``spiffe://…/coordinator`` and
            ``coordinator.handfast``; for a PKI of your own.
        frame_address: where the coordinator's frames come in beside gRPC, ``host:port`` (docs/ARCHITECTURE.md); empty
            takes the host of the participant's address and any free port, ``off`` has none.
        frame_via: by the gRPC address that the coordinator dials, where it finds that port; for proxies.

    Raises:
        HandfastFault: SETTING_INVALID.
    """

    connections_max: int = 20
    finish_connections_max: int = 8
    connection_wait_s: float = 10.0
    connect_timeout_s: float = 5.0
    finish_wait_s: float = 15.0
    lock_timeout_s: float = 5.0
    idle_margin_s: float = 5.0
    alive_check_ms: int = 1_000
    keepalive_s: int = 10
    timeout_default_s: float = 30.0
    enlist_timeout_s: float = 5.0
    register_interval_s: float = 15.0
    retry_first_s: float = 0.1
    retry_max_s: float = 5.0
    recovery_interval_s: float = 10.0
    inquire_after_s: float = 5.0
    memory_count_max: int = 100_000
    memory_age_s: float = 3_600.0
    close_wait_s: float = 5.0
    payload_bytes_max: int = 4 * 1024 * 1024
    coordinator_names: tuple[str, ...] = ()
    frame_address: str = ""
    frame_via: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        may_be_zero = {"alive_check_ms", "idle_margin_s", "inquire_after_s", "close_wait_s"}
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in _NO_NUMBERS:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
                raise HandfastFault("SETTING_INVALID", setting=option.name, problem="it is not a number")
            most = MS_MAX / 1000 if option.name.endswith("_s") else MS_MAX
            if value > most:
                raise HandfastFault("SETTING_INVALID", setting=option.name, problem=f"it is more than {most:g}")
            if value < 0 or (value == 0 and option.name not in may_be_zero):
                shown = value if value > -MS_MAX else "it"
                raise HandfastFault("SETTING_INVALID", setting=option.name, problem=f"{shown} is too small")
        self._check_frame_port()
        if self.retry_first_s > self.retry_max_s:
            problem = f"{self.retry_first_s} is more than retry_max_s, {self.retry_max_s}"
            raise HandfastFault("SETTING_INVALID", setting="retry_first_s", problem=problem)

    def _check_frame_port(self) -> None:
        if not isinstance(self.frame_via, Mapping):
            raise HandfastFault("SETTING_INVALID", setting="frame_via", problem="it is not a mapping")
        addresses: list[tuple[str, object]] = [("frame_via", one) for pair in self.frame_via.items() for one in pair]
        if self.frame_address not in ("", OFF):
            addresses.append(("frame_address", self.frame_address))
        for setting, address in addresses:
            if not isinstance(address, str) or not _HOST_PORT.fullmatch(address):
                raise HandfastFault("SETTING_INVALID", setting=setting, problem="it is not host:port")
