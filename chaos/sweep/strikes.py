"""One point: let the fault strike there, start the coordinator again without it, and judge."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import grpc
import psycopg

from chaos.stack import StackError
from chaos.sweep.endings import Ending, UnknownEnding, allowed, ending
from chaos.sweep.lane import Attempt, Lane
from chaos.sweep.points import Point, Stage
from chaos.sweep.stages import ACTS
from chaos.sweep.tracing import counted, struck

_LOG_LINES = 12


@dataclass(frozen=True, slots=True)
class Strike:
    """What came of one point.

    Args:
        point: which.
        hit: whether the coordinator made that call, so that the fault struck.
        ending: how the coordinator ended; None when that could not be told.
        problems: what is wrong, in words; none when all is well.
    """

    point: Point
    hit: bool
    ending: Ending | None
    problems: tuple[str, ...] = ()


async def count(lane: Lane, stage: Stage) -> Counter[str]:
    """Run a stage without fault. Returns how many calls of each kind its thread makes."""
    attempt = lane.attempt(None)
    await _ready_for(lane, stage)
    await ACTS[stage](lane, attempt)
    await _start_again(lane, stage)
    return counted(attempt.seen)


async def strike(lane: Lane, point: Point) -> Strike:
    """Run a stage with the fault, then judge. Whatever goes wrong is among the problems, and nothing is raised."""
    attempt = lane.attempt(point)
    stage = point.series.stage
    try:
        await _ready_for(lane, stage)
        await ACTS[stage](lane, attempt)
        hit, end, problems = _look(lane, attempt, point)
        if end is Ending.SURVIVED and hit:
            problems += await lane.goes_on()
        await _start_again(lane, stage)
        problems += await lane.judge()
    except (StackError, grpc.RpcError, psycopg.Error, OSError) as broken:
        return Strike(point, True, None, (f"{type(broken).__name__}: {broken}",))
    finally:
        attempt.output.unlink(missing_ok=True)
    return Strike(point, hit, end, tuple(problems))


async def _ready_for(lane: Lane, stage: Stage) -> None:
    """See to it that the coordinator runs as the stage needs it; at first it may be down, or another stage's."""
    each = stage is Stage.CHECKPOINT
    if not lane.coordinator.alive or lane.coordinator.each_checkpoint != each:
        await lane.kill()
        await lane.start(each_checkpoint=each)


async def _start_again(lane: Lane, stage: Stage) -> None:
    await lane.kill()
    await lane.start(each_checkpoint=stage is Stage.CHECKPOINT)


def _look(lane: Lane, attempt: Attempt, point: Point) -> tuple[bool, Ending | None, list[str]]:
    """Whether the fault struck, how the coordinator ended, and what is wrong with that."""
    code = lane.coordinator.exit_code
    try:
        end = ending(code)
    except UnknownEnding as unknown:
        return True, None, [f"{unknown}: {lane.coordinator.log_tail(_LOG_LINES)}"]
    call = struck(attempt.seen)
    if end is not Ending.KILLED and call is None:
        return False, end, []
    problems = []
    may_end = allowed(point, on_folder=call is not None and call.file == str(lane.bank.log.parent))
    if end not in may_end:
        may = " or ".join(sorted(one.value for one in may_end))
        problems.append(f"it {end.value}, and may only be {may}: {lane.coordinator.log_tail(_LOG_LINES)}")
    if end is Ending.REFUSED and "Traceback" in lane.coordinator.output():
        problems.append(f"it ended with a traceback: {lane.coordinator.log_tail(_LOG_LINES)}")
    return True, end, problems
