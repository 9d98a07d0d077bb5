"""What the clients of a run do, and on what: drawn from the seed before it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from tests.simulation.faults import Around, Fault, draw

RESOURCES = ("accounts", "ledger", "audit")
ROWS = ("a", "b", "c")
BALANCE = 100
FAULTS_END_S = 15.0
ROWS_SHARE = 0.5
"""In how many of the runs some transactions are alike and begin together, so that they travel as rows of columns."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of work in a transaction.

    Args:
        resource: where.
        instance: which of its processes is called (interactive transactions).
        row: which row.
        amount: what is added to it; 0 only reads.
    """

    resource: str
    instance: int
    row: str
    amount: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One transaction of a client.

    Args:
        number: names it in the trace.
        at_s: when it begins.
        one_shot: whether its work travels inside Prepare.
        pieces: its work, in order.
        timeout_s: its time.
        applied: whether its commit waits until every branch has applied it.
        ending: ``commit``, ``change of mind`` (an exception in the block), ``vanish`` (nothing is said any more),
            ``twice`` (a second task commits by gtrid at the same time), ``both`` (another rolls back meanwhile).
    """

    number: int
    at_s: float
    one_shot: bool
    pieces: tuple[Piece, ...]
    timeout_s: float
    applied: bool
    ending: str


@dataclass(frozen=True, slots=True)
class Settings:
    """How the processes of a run are set up.

    Args:
        instances: how many processes serve each resource.
        finished_kept_max: how many ended transactions the coordinator keeps in memory.
        unrecorded_kept_max: likewise, of those that committed without a record.
        retention_s: how long the log remembers.
        block_size: how many gtrids a client draws at a time.
        block_lifetime_s: how long they may be used.
        sweep_interval_s: the coordinator's.
        inquire_after_s: the participants'.
        slots: max_prepared_transactions of each database.
        connections: the pools' size.
        columns: whether calls of one shape may travel together, as columns.
    """

    instances: tuple[int, ...] = (1, 1)
    finished_kept_max: int = 10_000
    unrecorded_kept_max: int = 100_000
    retention_s: float = 86_400.0
    block_size: int = 16
    block_lifetime_s: float = 600.0
    sweep_interval_s: float = 10.0
    inquire_after_s: float = 5.0
    slots: int = 10
    connections: int = 4
    columns: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that decides a run.

    Args:
        seed: of the delays, and of what else is drawn while it runs.
        settings: how the processes are set up.
        plans: what the clients do.
        faults: what goes wrong.
    """

    seed: int
    settings: Settings
    plans: tuple[Plan, ...]
    faults: tuple[Fault, ...]

    @property
    def participants(self) -> tuple[str, ...]:
        """The participant processes' names."""
        numbers = self.settings.instances
        return tuple(f"{RESOURCES[i]}-{n}" for i, many in enumerate(numbers) for n in range(1, many + 1))

    @property
    def databases(self) -> tuple[str, ...]:
        """The databases' names, which are the resources'."""
        return RESOURCES[: len(self.settings.instances)]


def scenario(seed: int) -> Scenario:
    """Draw a run."""
    random = Random(f"handfast {seed}")
    settings = _settings(random)
    plans = _plans(random, settings)
    if len(settings.instances) > 1 and Random(f"handfast {seed}, rows").random() < ROWS_SHARE:
        block_size, slots = random.choice((2, 16, 16, 16)), random.choice((10, 10, 10, 10, 2))
        settings = replace(settings, columns=True, block_size=block_size, slots=slots)
        for _ in range(random.choice((1, 1, 2))):
            plans = (*plans, *_rows(random, settings, len(plans)))
    bare = Scenario(seed, settings, plans, ())
    around = Around(bare.participants, bare.databases, FAULTS_END_S * 0.5, tuple(plan.at_s for plan in bare.plans))
    return replace(bare, faults=draw(random, around))


def _settings(random: Random) -> Settings:
    return Settings(
        instances=random.choice(((1, 1), (1, 1), (2, 1), (2, 2), (1, 1, 1), (1,))),
        finished_kept_max=random.choice((10_000, 10_000, 1)),
        unrecorded_kept_max=random.choice((100_000, 100_000, 1)),
        retention_s=random.choice((86_400.0, 86_400.0, 20.0)),
        block_size=random.choice((1, 2, 16)),
        block_lifetime_s=random.choice((600.0, 600.0, 8.0)),
        sweep_interval_s=random.choice((2.0, 10.0, 30.0)),
        inquire_after_s=random.choice((0.0, 5.0)),
        slots=random.choice((10, 10, 10, 1)),
        connections=random.choice((4, 4, 1)),
    )


def _plans(random: Random, settings: Settings) -> tuple[Plan, ...]:
    number = random.choice((1, 2, 3, 4, 5))
    spread_s = random.choice((0.2, 2.0, 5.0))
    return tuple(_plan(random, settings, n, round(0.3 + random.uniform(0, spread_s), 3)) for n in range(number))


def _plan(random: Random, settings: Settings, number: int, at_s: float) -> Plan:
    resources = RESOURCES[: len(settings.instances)]
    chosen = random.sample(resources, random.choice((1, len(resources), len(resources), len(resources))))
    pieces = tuple(_piece(random, settings, resource) for resource in chosen)
    if random.random() < 0.2:
        pieces = (*pieces, _piece(random, settings, random.choice(chosen)))
    ending = random.choice(("commit",) * 8 + ("change of mind", "vanish", "twice", "both"))
    one_shot = random.random() < 0.5
    timeout_s = round(random.choice((0.3, 1.5, 3.0, 6.0)), 3)
    return Plan(number, at_s, one_shot, pieces, timeout_s, random.random() < 0.7, ending)


def _piece(random: Random, settings: Settings, resource: str) -> Piece:
    instance = random.randint(1, settings.instances[RESOURCES.index(resource)])
    amount = random.choice((0, -60, -5, 5, 7, 11))
    return Piece(resource, instance, random.choice(ROWS), amount)


def _rows(random: Random, settings: Settings, first: int) -> tuple[Plan, ...]:
    """Transactions of one shape that begin together: a piece on each resource, all on one row there."""
    at_s = round(0.3 + random.uniform(0, 2.0), 3)
    resources = random.sample(RESOURCES[: len(settings.instances)], len(settings.instances))
    timeout_s, applied = random.choice((0.3, 1.5, 3.0, 6.0)), random.random() < 0.7
    amounts = (-60, -5, 5, 7, 11) if random.random() < 0.3 else (-5, 5)
    return tuple(
        Plan(
            number=number,
            at_s=at_s,
            one_shot=True,
            pieces=tuple(Piece(name, 1, ROWS[number % len(ROWS)], random.choice(amounts)) for name in resources),
            timeout_s=timeout_s,
            applied=applied,
            ending="commit",
        )
        for number in range(first, first + random.choice((2, 3, 3, 4, 6)))
    )
