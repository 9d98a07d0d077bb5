"""The workload, stage by stage. Each takes a lane whose coordinator is up and without fault, and leaves it anyhow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from chaos.sweep.lane import Attempt, Lane
from chaos.sweep.points import Stage

Act = Callable[[Lane, Attempt], Awaitable[None]]


async def create(lane: Lane, attempt: Attempt) -> None:
    """There is no log; the coordinator makes one."""
    await lane.kill()
    lane.remove_log()
    await lane.new_era()
    await _start(lane, attempt)


async def open_after_crash(lane: Lane, attempt: Attempt) -> None:
    """The write-ahead log is as a crash left it, and transactions are under way."""
    await lane.kill_midway()
    await _start(lane, attempt)


async def open_after_stop(lane: Lane, attempt: Attempt) -> None:
    """There is no write-ahead log."""
    await lane.stop()
    await _start(lane, attempt)


async def _start(lane: Lane, attempt: Attempt) -> None:
    """Nobody registers meanwhile, so that only the thread that opens the log writes to it."""
    async with lane.services_paused():
        await lane.start_standing()
        async with lane.traced(attempt):
            await lane.watch(attempt, lane.bank.admin.answers)


async def register(lane: Lane, attempt: Attempt) -> None:
    """Participants come back, and what was decided is brought to its end."""
    await lane.kill_midway()
    await lane.start_standing("before-fsync=stop")
    async with lane.traced(attempt):
        await lane.watch(attempt, lane.bank.all_reachable)
        await lane.watch_ends(attempt)


async def work(lane: Lane, attempt: Attempt) -> None:
    """Transactions commit and end."""
    async with lane.traced(attempt):
        transfers = lane.begin_transfers()
        await lane.watch(attempt, transfers.done)
        await lane.watch_ends(attempt)


async def stop(lane: Lane, attempt: Attempt) -> None:
    """Everything is written; the coordinator is told to stop."""
    await lane.finish_transfers()
    await lane.watch_ends(attempt)
    async with lane.traced(attempt):
        lane.coordinator.terminate()
        await lane.watch(attempt, lambda: False)


async def planned(lane: Lane, attempt: Attempt) -> None:
    """The coordinator kills itself at a failpoint: as it starts, as it works, or never."""
    await lane.kill()
    lane.start_armed(f"{attempt.point.series.call}=kill@{attempt.point.number}" if attempt.point else "")
    await lane.watch(attempt, lane.bank.all_reachable)
    if lane.coordinator.alive:
        transfers = lane.begin_transfers()
        await lane.watch(attempt, transfers.done)
        await lane.watch_ends(attempt)


ACTS: Mapping[Stage, Act] = {
    Stage.CREATE: create,
    Stage.OPEN: open_after_crash,
    Stage.REOPEN: open_after_stop,
    Stage.REGISTER: register,
    Stage.WORK: work,
    Stage.CHECKPOINT: work,
    Stage.STOP: stop,
    Stage.PLANNED: planned,
}
