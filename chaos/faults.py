"""What can be done to a link or to a process. Each fault is a value: it says what it does, does it, and undoes it.

A fault acts through ``Reach``, which is all it knows of the stack; so the same faults work on a stack that is not the
bank. Faults block, briefly; ``Lab.inject`` calls them off the event loop and records when they acted.

    Cut                                       the link drops every connection and refuses new ones
    silence, latency, bandwidth, slicer,
    limit_data, reset_peer                    Toxiproxy's toxics, each a ``Toxic``
    Kill, Pause, Restart                      SIGKILL, SIGSTOP, an orderly stop and start
    FullDisk                                  no space for the decision log
    StopPostgres, PausePostgres               a database that crashes (``immediate``) or stands still
    Crash                                     a process dies by itself at a named failpoint
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from chaos.small_disk import fill
from chaos.stack import ManagedProcess, NotInTime, PostgresCluster, wait_until
from chaos.stack.postgres import StopMode
from chaos.toxiproxy import Wire

Direction = Literal["both", "to", "from"]
"""Which half of a link: what travels to its target, what comes back from it, or both."""

_STREAMS: dict[Direction, tuple[str, ...]] = {
    "both": ("upstream", "downstream"),
    "to": ("upstream",),
    "from": ("downstream",),
}
_WAYS: dict[Direction, str] = {"both": "both ways", "to": "on the way there", "from": "on the way back"}
_UNHEARD: dict[Direction, str] = {"both": "silence", "to": "deaf", "from": "mute"}
_CRASH_S_MAX = 20.0


class Reach(Protocol):
    """What a fault can lay its hands on, by name."""

    def wire(self, source: str, target: str) -> Wire: ...

    def process(self, name: str) -> ManagedProcess: ...

    def postgres(self, name: str) -> PostgresCluster: ...

    def start_process(self, name: str) -> None: ...

    @property
    def log(self) -> Path: ...


class Fault(Protocol):
    """What all faults have in common."""

    @property
    def label(self) -> str: ...

    @property
    def words(self) -> str: ...

    @property
    def lanes(self) -> tuple[str, ...]: ...

    def start(self, reach: Reach) -> None: ...

    def heal(self, reach: Reach) -> None: ...


# -- links -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cut:
    """The link is down: open connections are dropped at once, new ones refused."""

    source: str
    target: str

    @property
    def label(self) -> str:
        return f"cut {self.source} → {self.target}"

    @property
    def words(self) -> str:
        return f"The link {self.source} → {self.target} is cut: its connections drop, new ones are refused."

    @property
    def lanes(self) -> tuple[str, ...]:
        return self.source, self.target

    def start(self, reach: Reach) -> None:
        reach.wire(self.source, self.target).disable()

    def heal(self, reach: Reach) -> None:
        reach.wire(self.source, self.target).enable()


@dataclass(frozen=True, slots=True)
class Toxic:
    """One of Toxiproxy's toxics on a link; the functions below make them.

    Args:
        source: who connects.
        target: to whom.
        kind: the toxic's type, as Toxiproxy calls it.
        label: two or three words.
        words: what it does, as a sentence.
        direction: which half of the link.
        attributes: the toxic's settings.
    """

    source: str
    target: str
    kind: str
    label: str
    words: str
    direction: Direction = "both"
    attributes: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def lanes(self) -> tuple[str, ...]:
        return self.source, self.target

    def start(self, reach: Reach) -> None:
        for stream in _STREAMS[self.direction]:
            reach.wire(self.source, self.target).add_toxic(
                type=self.kind, stream=stream, attributes=dict(self.attributes)
            )

    def heal(self, reach: Reach) -> None:
        for stream in _STREAMS[self.direction]:
            reach.wire(self.source, self.target).destroy_toxic(f"{self.kind}_{stream}")


def silence(source: str, target: str, direction: Direction = "both") -> Toxic:
    """Connections stay open and nothing arrives: a partition that no end notices. Healing drops the connections."""
    words = f"Nothing arrives on the link {source} → {target} {_WAYS[direction]}; its connections stay open."
    label = f"{_UNHEARD[direction]} {source} → {target}"
    return Toxic(source, target, "timeout", label, words, direction, {"timeout": 0})


def latency(source: str, target: str, ms: int, *, jitter_ms: int = 0, direction: Direction = "from") -> Toxic:
    """Everything arrives later, by ``ms`` plus or minus ``jitter_ms``."""
    spread = f" (± {jitter_ms} ms)" if jitter_ms else ""
    words = f"Everything on the link {source} → {target} arrives {ms} ms late{spread} {_WAYS[direction]}."
    settings = {"latency": ms, "jitter": jitter_ms}
    return Toxic(source, target, "latency", f"+{ms} ms {source} → {target}", words, direction, settings)


def bandwidth(source: str, target: str, kb_per_s: int, direction: Direction = "both") -> Toxic:
    """The link carries no more than this many kilobytes a second."""
    words = f"The link {source} → {target} carries {kb_per_s} KB/s {_WAYS[direction]}."
    return Toxic(
        source, target, "bandwidth", f"{kb_per_s} KB/s {source} → {target}", words, direction, {"rate": kb_per_s}
    )


def slicer(source: str, target: str, *, size: int, delay_us: int, direction: Direction = "both") -> Toxic:
    """Data arrives in slices of about ``size`` bytes, ``delay_us`` microseconds apart."""
    words = f"Data on the link {source} → {target} arrives in slices of {size} bytes, {delay_us} µs apart."
    settings = {"average_size": size, "size_variation": size // 2, "delay": delay_us}
    return Toxic(source, target, "slicer", f"slices {source} → {target}", words, direction, settings)


def limit_data(source: str, target: str, size: int, direction: Direction = "from") -> Toxic:
    """Each connection is closed after this many bytes, wherever in a message that is."""
    words = f"Each connection on the link {source} → {target} is closed after {size} bytes {_WAYS[direction]}."
    settings = {"bytes": size}
    return Toxic(source, target, "limit_data", f"{size} B {source} → {target}", words, direction, settings)


def reset_peer(source: str, target: str, *, after_ms: int = 0, direction: Direction = "both") -> Toxic:
    """Each connection is reset (TCP RST), after ``after_ms``."""
    words = f"Each connection on the link {source} → {target} is reset after {after_ms} ms."
    settings = {"timeout": after_ms}
    return Toxic(source, target, "reset_peer", f"reset {source} → {target}", words, direction, settings)


# -- processes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL; healed by starting it again."""

    name: str

    @property
    def label(self) -> str:
        return f"{self.name} dead"

    @property
    def words(self) -> str:
        return f"{self.name} is killed (SIGKILL): no handler and no flush runs."

    @property
    def lanes(self) -> tuple[str, ...]:
        return (self.name,)

    def start(self, reach: Reach) -> None:
        reach.process(self.name).kill()

    def heal(self, reach: Reach) -> None:
        reach.start_process(self.name)


@dataclass(frozen=True, slots=True)
class Pause:
    """SIGSTOP; healed by SIGCONT. Its connections stay open meanwhile, and its clock goes on."""

    name: str

    @property
    def label(self) -> str:
        return f"{self.name} paused"

    @property
    def words(self) -> str:
        return f"{self.name} stands still (SIGSTOP): its connections stay open and nothing answers."

    @property
    def lanes(self) -> tuple[str, ...]:
        return (self.name,)

    def start(self, reach: Reach) -> None:
        reach.process(self.name).pause()

    def heal(self, reach: Reach) -> None:
        reach.process(self.name).resume()


@dataclass(frozen=True, slots=True)
class Restart:
    """An orderly stop (SIGTERM), then SIGKILL when that takes too long, as an init system does; healed by a start."""

    name: str
    patience_s: float = 5.0

    @property
    def label(self) -> str:
        return f"{self.name} restarts"

    @property
    def words(self) -> str:
        return f"{self.name} is told to stop (SIGTERM), gets {self.patience_s:g} s to do so, and is started again."

    @property
    def lanes(self) -> tuple[str, ...]:
        return (self.name,)

    def start(self, reach: Reach) -> None:
        process = reach.process(self.name)
        try:
            process.stop(timeout_s=self.patience_s)
        except NotInTime:
            process.kill()

    def heal(self, reach: Reach) -> None:
        reach.start_process(self.name)


@dataclass(frozen=True, slots=True)
class FullDisk:
    """Somebody fills the small file system that the decision log is on; healed by removing what fills it."""

    @property
    def label(self) -> str:
        return "disk of the log full"

    @property
    def words(self) -> str:
        return "The file system of the decision log has no byte left."

    @property
    def lanes(self) -> tuple[str, ...]:
        return ("coordinator",)

    def start(self, reach: Reach) -> None:
        fill(_filler(reach))

    def heal(self, reach: Reach) -> None:
        _filler(reach).unlink()


def _filler(reach: Reach) -> Path:
    """A file beside the log, in the file system as the coordinator sees it."""
    return Path(f"/proc/{reach.process('coordinator').pid}/root") / str(reach.log.parent).lstrip("/") / "filler"


@dataclass(frozen=True, slots=True)
class StopPostgres:
    """A database server stops, by default as in a crash; healed by a start, which replays its log."""

    database: str
    mode: StopMode = "immediate"

    @property
    def label(self) -> str:
        return f"postgres {self.database} down"

    @property
    def words(self) -> str:
        return f"Postgres {self.database} stops (-m {self.mode}); what is prepared is on its disk."

    @property
    def lanes(self) -> tuple[str, ...]:
        return (f"postgres-{self.database}",)

    def start(self, reach: Reach) -> None:
        reach.postgres(self.database).stop(self.mode)

    def heal(self, reach: Reach) -> None:
        reach.postgres(self.database).start()


@dataclass(frozen=True, slots=True)
class PausePostgres:
    """A database server and its sessions stand still; healed by letting them go on."""

    database: str

    @property
    def label(self) -> str:
        return f"postgres {self.database} paused"

    @property
    def words(self) -> str:
        return f"Postgres {self.database} and all its sessions stand still (SIGSTOP)."

    @property
    def lanes(self) -> tuple[str, ...]:
        return (f"postgres-{self.database}",)

    def start(self, reach: Reach) -> None:
        reach.postgres(self.database).pause()

    def heal(self, reach: Reach) -> None:
        reach.postgres(self.database).resume()


@dataclass(frozen=True, slots=True)
class Crash:
    """A process dies, or stands still, by itself at a failpoint that was armed at its start. ``start`` waits for it.

    Args:
        point: the failpoint, for the label; see coordinator.runtime.failpoints and participant.failpoints.
        words: what that means here, as a sentence.
        action: as armed.
        name: the process.
    """

    point: str
    words: str
    action: Literal["kill", "stop"] = "kill"
    name: str = "coordinator"

    @property
    def label(self) -> str:
        return f"{self.name} {'dead' if self.action == 'kill' else 'paused'} ({self.point})"

    @property
    def lanes(self) -> tuple[str, ...]:
        return (self.name,)

    def start(self, reach: Reach) -> None:
        process = reach.process(self.name)
        hit = (lambda: not process.alive) if self.action == "kill" else (lambda: process.paused)
        wait_until(hit, _CRASH_S_MAX, lambda: process.report(f"never reached its failpoint {self.point}"))

    def heal(self, reach: Reach) -> None:
        if self.action == "kill":
            reach.start_process(self.name)
        else:
            reach.process(self.name).resume()


def healing_order(faults: Sequence[Fault]) -> list[Fault]:
    """The latest first, but databases before all others: a service that is started waits for its own."""
    latest_first = list(reversed(faults))
    return sorted(latest_first, key=lambda fault: not fault.lanes[0].startswith("postgres-"))
