"""All points of the sweep: counted, then struck, several lanes side by side.

Counting says how many calls there are about: pages split, and records travel together or alone. So a number that was
counted is tried again when a run does not come to it; and a series of kills goes on past the count, until a run was not
struck: that stage has no further call of that kind.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from chaos.stack import Stack
from chaos.sweep.lane import Lane
from chaos.sweep.points import Choice, Fault, Point, Series, Stage, all_series, numbers, planned_series
from chaos.sweep.strikes import Strike, count, strike

Tell = Callable[[str], None]

TRIES = 3
"""How often a call is waited for that was there when calls were counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to sweep.

    Args:
        choice: which points.
        quick: only every fifth write.
        lanes: how many stacks side by side.
        keep: leave the stacks' folders.
        environment: variables of every process's environment.
    """

    choice: Choice = field(default_factory=Choice)
    quick: bool = False
    lanes: int = 2
    keep: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_planned(self) -> bool:
        """Whether it is about the failpoints of the coordinator's own code, for which strace is not needed."""
        return self.choice.stage is Stage.PLANNED


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """What came of one series.

    Args:
        series: which.
        counted: how many calls there were when they were counted; 0 when they were not.
        strikes: its points, in order.
        complete: whether it ended with a call that was not there any more.
    """

    series: Series
    counted: int
    strikes: Sequence[Strike]
    complete: bool

    @property
    def hits(self) -> int:
        """At how many points the fault struck."""
        return sum(strike.hit for strike in self.strikes)


@dataclass(slots=True)
class Swept:
    """The whole sweep.

    Args:
        counts: the calls of each stage, by kind.
        results: of each series.
        restarts: how often the coordinator was started.
        acknowledged: transactions that clients were told to be committed.
        asked: transactions that they asked for.
        judged: how often a transaction was judged: each is, again after each run in the life of its log.
    """

    counts: dict[Stage, Counter[str]] = field(default_factory=dict)
    results: list[SeriesResult] = field(default_factory=list)
    restarts: int = 0
    acknowledged: int = 0
    asked: int = 0
    judged: int = 0


async def sweep(wish: Wish, strace: Sequence[str], tell: Tell) -> Swept:
    """Sweep.

    Args:
        wish: what.
        strace: the beginning of its command line; empty when it is not needed.
        tell: is told of each series as it ends.

    Raises:
        StackError: a stack did not start, or a stage could not be counted.
    """
    swept = Swept()
    stacks = [Stack(keep=wish.keep) for _ in range(wish.lanes)]
    async with AsyncExitStack() as open_stacks:
        lanes = [
            Lane(f"lane{number}-", stack, strace, wish.environment)
            for number, stack in enumerate([await open_stacks.enter_async_context(one) for one in stacks], 1)
        ]
        await asyncio.gather(*(lane.begin() for lane in lanes))
        every = planned_series() if wish.is_planned else await _counted(lanes, wish, swept, tell)
        todo = deque(series for series in every if wish.choice.holds(series))
        await asyncio.gather(*(_work(lane, todo, wish, swept, tell) for lane in lanes))
        for lane in lanes:
            swept.restarts += lane.restarts
            swept.acknowledged += lane.acknowledged
            swept.asked += lane.asked
            swept.judged += lane.judged
    return swept


async def _counted(lanes: Sequence[Lane], wish: Wish, swept: Swept, tell: Tell) -> list[Series]:
    """Count the calls of each stage that is wished for, and list the series."""
    stages = deque(stage for stage in Stage if wish.choice.stage in (None, stage) and stage is not Stage.PLANNED)

    async def work(lane: Lane) -> None:
        while stages:
            stage = stages.popleft()
            swept.counts[stage] = await count(lane, stage)

    await asyncio.gather(*(work(lane) for lane in lanes))
    every = all_series(swept.counts, Fault)
    points = sum(swept.counts[series.stage][series.call] for series in every)
    tell(f"counted: {len(every)} series of {points} points")
    return every


async def _work(lane: Lane, todo: deque[Series], wish: Wish, swept: Swept, tell: Tell) -> None:
    while todo:
        series = todo.popleft()
        counted = swept.counts.get(series.stage, Counter())[series.call]
        result = await _swept(lane, series, counted, wish)
        swept.results.append(result)
        for one in result.strikes:
            for problem in one.problems:
                tell(f"  {one.point}: {problem}")
        wrong = sum(bool(one.problems) for one in result.strikes)
        tell(f"{series}: struck {result.hits} times" + (f", {wrong} WRONG" if wrong else ""))


async def _swept(lane: Lane, series: Series, counted: int, wish: Wish) -> SeriesResult:
    """Strike one number after the other, until one is not there any more, or a run broke off."""
    strikes: list[Strike] = []
    for number in numbers(counted, series, wish.choice, quick=wish.quick):
        point = Point(series, number)
        strikes.append(await _struck_at_last(lane, point, TRIES if number <= counted else 1))
        if strikes[-1].ending is None:
            break
        if number > counted and not strikes[-1].hit:
            return SeriesResult(series, counted, strikes, complete=True)
    return SeriesResult(series, counted, strikes, complete=False)


async def _struck_at_last(lane: Lane, point: Point, tries: int) -> Strike:
    """Strike a call that was counted. A stage does not make quite as many calls each time, so it may take another."""
    made = await strike(lane, point)
    for _ in range(tries - 1):
        if made.hit or made.problems:
            break
        made = await strike(lane, point)
    return made
