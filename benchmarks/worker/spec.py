"""What a worker is told, and what it answers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a worker shall do.

    Args:
        kind: which kind of call, a key of ``benchmarks.worker.__main__.KINDS``.
        in_flight: how many calls at once (closed loop).
        seconds: for how long to measure.
        warm_up_s: for how long to run before.
        count: how many calls to measure at most; 0 for no such limit.
        rate: how many calls a second to begin (open loop); 0 for a closed loop.
        coordinator: its address.
        address: another server's address, for kinds that call one.
        addresses: the business services' addresses.
        dsns: the databases.
        resources: the resources that a transaction changes.
        log: the decision log's file.
        watch: processes whose CPU time is measured too, by name; a name that begins with ``postgres`` is measured with
            all of its children.
    """

    kind: str
    in_flight: int = 1
    seconds: float = 1.0
    warm_up_s: float = 0.5
    count: int = 0
    rate: float = 0.0
    coordinator: str = ""
    address: str = ""
    addresses: tuple[str, ...] = ()
    dsns: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    log: str = ""
    watch: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read it back."""
        given: dict[str, Any] = json.loads(text)
        values: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in given.items()}
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a worker measured.

    Args:
        done: how many calls were completed.
        seconds: in how long.
        p50_ms: the median time of a call; 0 when calls were not timed, as the next three.
        p99_ms: its 99th percentile.
        max_ms: the longest.
        cpu_us: CPU time for each call by process, in microseconds; this process is ``client``.
    """

    done: int
    seconds: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    cpu_us: dict[str, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Calls a second."""
        return self.done / self.seconds

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read it back."""
        return cls(**json.loads(text))
