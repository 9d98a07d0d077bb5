"""What can go wrong in a run, as values: a run's plan is a tuple of them, drawn from the seed before it starts.

A fault says where it strikes by counting: the second Prepare, the third force of the log. So a plan can be read, and
shrunk: whatever is taken out of it, the rest still means what it meant.

Drawing follows "swarm testing" (Groce et al., 2012): each seed first chooses which kinds of faults it will use at all,
because runs that use a few kinds, and those often, reach deeper than runs that use a little of everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

MESSAGES = ("Prepare", "Commit", "CommitOnePhase", "Rollback", "Recover")
REQUESTS = ("Begin", "Enlist", "ClientCommit", "ClientRollback", "Execute", "Inquire", "Register", "Work")
STATEMENTS = ("BEGIN", "UPDATE", "STANDING", "PREPARE", "COMMIT", "ROLLBACK", "COMMIT PREPARED", "ROLLBACK PREPARED")
QUESTIONS = ("LIST", "STATUS", "RECOVER")


@dataclass(frozen=True, slots=True)
class Crash:
    """A process dies instead of taking its n-th step, and is started again after a while."""

    process: str
    at_step: int
    down_s: float


@dataclass(frozen=True, slots=True)
class CrashOnMessage:
    """A process dies right after the n-th message of a kind left it (``sent``) or reached it (``received``)."""

    kind: str
    number: int
    when: str
    down_s: float


@dataclass(frozen=True, slots=True)
class CrashOnForce:
    """The coordinator dies around the n-th force: ``before`` it reached the disk, ``torn`` (some of it did), ``after``
    it reached the disk and before anybody heard."""

    number: int
    when: str
    down_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """A process is stopped and goes on later: a slow participant, a long collection of garbage."""

    process: str
    at_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class PauseOnMessage:
    """A process is stopped right after the n-th message of a kind left it."""

    kind: str
    number: int
    for_s: float


@dataclass(frozen=True, slots=True)
class Partition:
    """Two processes' machines can't reach one another for a while."""

    first: str
    second: str
    at_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class MessageFault:
    """What happens to the n-th message of a kind.

    Effects: ``lose request``, ``lose reply`` (nobody hears; the caller's time runs out), ``break before``, ``break
    after`` (the connection breaks, before or after the work was done), ``repeat`` (it arrives twice), ``delay
    request``, ``delay reply``.
    """

    kind: str
    number: int
    effect: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class LogFault:
    """What happens to the n-th force: ``slow``, ``full``, ``fsync failed`` (and nobody knows what is on the disk)."""

    number: int
    effect: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class StatementFault:
    """What happens to the n-th statement of a kind on a database: ``slow``, ``error``; the connection breaks before or
    after it was done (``break before``, ``break after``), or the whole server dies (``crash before``, ``crash after``).
    """

    database: str
    kind: str
    number: int
    effect: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class DatabaseCrash:
    """A database server dies and comes back."""

    database: str
    at_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class ClockJump:
    """A machine's wall clock jumps."""

    process: str
    at_s: float
    by_s: float


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody resolves one of the clients' transactions by the command, a while after it began."""

    transaction: int
    after_s: float
    action: str
    heuristic: bool


@dataclass(frozen=True, slots=True)
class ByHand:
    """Somebody ends the n-th branch that is prepared on a database with psql, past everybody, a while later."""

    database: str
    number: int
    after_s: float
    commit: bool


@dataclass(frozen=True, slots=True)
class GracefulRestart:
    """The coordinator is told to stop, and started again."""

    at_s: float
    down_s: float


Fault = (
    Crash
    | CrashOnMessage
    | CrashOnForce
    | Pause
    | PauseOnMessage
    | Partition
    | MessageFault
    | LogFault
    | StatementFault
    | DatabaseCrash
    | ClockJump
    | Operator
    | ByHand
    | GracefulRestart
)

LINKS = (("coordinator", "{p}"), ("coordinator", "client"), ("client", "{p}"))


@dataclass(frozen=True, slots=True)
class Around:
    """What there is to hurt.

    Args:
        participants: the participant processes.
        databases: the databases.
        horizon_s: faults begin before this time.
        begins_s: when the clients' transactions begin.
    """

    participants: tuple[str, ...]
    databases: tuple[str, ...]
    horizon_s: float
    begins_s: tuple[float, ...]


def draw(random: Random, around: Around) -> tuple[Fault, ...]:
    """Draw a run's faults."""
    if random.random() < 0.04:
        return ()
    # Weighted sampling without replacement (Efraimidis & Spirakis, 2006).
    by_chance = sorted(_KINDS, key=lambda kind: random.random() ** (1.0 / _KINDS[kind]), reverse=True)
    kinds = by_chance[: random.randint(1, 4)]
    weights = [_KINDS[kind] for kind in kinds]
    number = random.choice((1, 2, 2, 3, 4, 6, 9, 12))
    return tuple(kind(random, around) for kind in random.choices(kinds, weights, k=number))


def _down_s(random: Random) -> float:
    return round(random.choice((0.05, 0.3, 1.0, 3.0, 8.0)) * random.uniform(0.5, 1.5), 3)


def _nth(random: Random) -> int:
    return random.choice((1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6))


def _process(random: Random, around: Around) -> str:
    return random.choice(("coordinator", "coordinator", *around.participants, "client"))


def _at_s(random: Random, around: Around) -> float:
    """Some time; mostly while a transaction is at work, which is a moment."""
    if random.random() < 0.25:
        return round(random.uniform(0.2, around.horizon_s), 3)
    return round(random.choice(around.begins_s) + 10 ** random.uniform(-2.7, 0.0), 4)


def _after_s(random: Random) -> float:
    return round(10 ** random.uniform(-3.0, 0.7), 4)


def _crash(random: Random, around: Around) -> Fault:
    return Crash(_process(random, around), int(10 ** random.uniform(1.0, 3.2)), _down_s(random))


def _crash_on_message(random: Random, around: Around) -> Fault:
    kind = random.choice(MESSAGES[:4] + REQUESTS[1:6])
    reply = random.choice(("", " reply"))
    return CrashOnMessage(kind + reply, _nth(random), random.choice(("sent", "received")), _down_s(random))


def _crash_on_force(random: Random, around: Around) -> Fault:
    return CrashOnForce(random.randint(2, 12), random.choice(("before", "torn", "after")), _down_s(random))


def _pause(random: Random, around: Around) -> Fault:
    return Pause(_process(random, around), _at_s(random, around), round(random.choice((0.2, 1, 3, 7, 15)), 3))


def _pause_on_message(random: Random, around: Around) -> Fault:
    kind = random.choice(MESSAGES[:4] + REQUESTS[1:6])
    reply = random.choice(("", "", " reply"))
    return PauseOnMessage(kind + reply, _nth(random), random.choice((0.2, 1.0, 2.0, 4.0, 8.0)))


def _partition(random: Random, around: Around) -> Fault:
    first, second = random.choice(LINKS)
    second = second.format(p=random.choice(around.participants))
    return Partition(first, second, _at_s(random, around), round(random.choice((0.3, 1.5, 5.0, 12.0, 30.0)), 3))


def _message(random: Random, around: Around) -> Fault:
    kind = random.choice(MESSAGES[:4] * 3 + MESSAGES + REQUESTS + ("Execute", "ClientCommit") * 2)
    effect = random.choice(
        ("lose request", "lose reply", "break before", "break after", "repeat", "delay request", "delay reply")
    )
    return MessageFault(kind, _nth(random), effect, round(10 ** random.uniform(-2.0, 1.1), 3))


def _log(random: Random, around: Around) -> Fault:
    effect = random.choice(("slow", "full", "fsync failed"))
    return LogFault(random.randint(2, 12), effect, round(random.choice((0.1, 0.5, 2.0, 6.0)), 3))


def _statement(random: Random, around: Around) -> Fault:
    kind = random.choice(STATEMENTS + ("PREPARE", "COMMIT", "COMMIT PREPARED") * 3 + QUESTIONS)
    effect = random.choice(("slow", "error", "break before", "break after", "crash before", "crash after"))
    return StatementFault(
        random.choice(around.databases), kind, _nth(random), effect, round(random.choice((0.2, 1.0, 6.0)), 3)
    )


def _database_crash(random: Random, around: Around) -> Fault:
    return DatabaseCrash(random.choice(around.databases), _at_s(random, around), round(random.choice((0.1, 1, 4)), 3))


def _clock_jump(random: Random, around: Around) -> Fault:
    by_s = random.choice((-7200.0, -60.0, -1.0, 1.0, 60.0, 7200.0))
    return ClockJump(_process(random, around), _at_s(random, around), by_s)


def _operator(random: Random, around: Around) -> Fault:
    action = random.choice(("commit", "rollback", "rollback", "retry-now", "forget"))
    return Operator(random.randrange(len(around.begins_s)), _after_s(random), action, random.random() < 0.3)


def _by_hand(random: Random, around: Around) -> Fault:
    return ByHand(random.choice(around.databases), random.randint(1, 3), _after_s(random) / 20, random.random() < 0.5)


def _graceful(random: Random, around: Around) -> Fault:
    return GracefulRestart(_at_s(random, around), _down_s(random))


_KINDS: dict[Callable[[Random, Around], Fault], float] = {
    _crash: 4.0,
    _crash_on_message: 4.0,
    _crash_on_force: 2.0,
    _pause: 1.5,
    _pause_on_message: 2.0,
    _partition: 2.0,
    _message: 6.0,
    _log: 1.5,
    _statement: 5.0,
    _database_crash: 1.5,
    _clock_jump: 0.7,
    _operator: 1.0,
    _by_hand: 2.0,
    _graceful: 0.7,
}
