"""The coordinator's disk: the log in memory, whose forces take time, fail, and are cut short by crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from coordinator.log.memory import MemoryLog
from coordinator.log.records import Identity
from coordinator.log.store import LogBroken, LogRefused
from coordinator.log.submissions import Decide, Submission
from tests.simulation.faults import CrashOnForce, LogFault

if TYPE_CHECKING:
    from tests.simulation.world import World

FORCE_S_MIN, FORCE_S_MAX = 0.0005, 0.006


class SimulatedLog(MemoryLog):
    """A decision log whose disk the simulation holds. It outlives the processes that open it.

    What was submitted and not forced is lost in a crash. A force that a crash cuts short has reached the disk in part:
    some first records of it, or all, or none.

    Args:
        world: where it is.
        coordinator_id: the id that a new log gets.
        on_broken: called when a force failed and nobody knows what it wrote.
    """

    def __init__(self, world: World, coordinator_id: str, on_broken: Callable[[LogBroken], None]) -> None:
        super().__init__(
            make_coordinator_id=lambda: coordinator_id,
            on_broken=on_broken,
            unix_ms=lambda: world.coordinator.clock.unix_ms(),
        )
        self.world = world
        self.forces = 0
        self.faults: dict[int, LogFault] = {}
        self.crashes: dict[int, CrashOnForce] = {}
        self._writing: list[Submission] = []

    async def open(self) -> Identity:
        identity = await super().open()
        self.world.observe.log_opened(identity)
        return identity

    async def close(self) -> None:
        """See LogStore."""
        while self._broken is None and (self._writing or self._waiting):
            self._force()
            await asyncio.sleep(FORCE_S_MAX)
        if self._broken is None:
            self._broken = LogBroken("the decision log is closed")

    def crash(self, forced: int = 0) -> None:
        """See MemoryLog; what was being written gets as far as chance has it, when ``forced`` does not say how far."""
        writing, self._writing = self._writing, []
        if writing and forced == 0:
            # None of it, all of it, or torn in between.
            forced = self.world.random.choice((0, len(writing), self.world.random.randint(0, len(writing))))
        self._apply_seen(writing[:forced])
        super().crash(0)

    def _submit(self, submission: Submission) -> None:
        if isinstance(submission, Decide):
            self.world.observe.decision_offered(submission.record)
        super()._submit(submission)

    def _force(self) -> None:
        self._cancel_alarms()
        if self._writing or not self._waiting:
            return  # the force under way sets the alarm again when it is done
        batch, self._waiting, self._urgent = self._waiting, [], False
        self._writing = batch
        self.forces += 1
        number = self.forces
        delay_s = self.world.random.uniform(FORCE_S_MIN, FORCE_S_MAX)
        fault, crash = self.faults.get(number), self.crashes.get(number)
        if fault is not None:
            self.world.count_fault(fault, f"force {number} of the log: {fault.effect}")
            delay_s += fault.delay_s
        if crash is not None:
            self._loop().call_later(delay_s, self._die, crash)
            return
        self._loop().call_later(delay_s, self._forced, batch, fault.effect if fault is not None else "")

    def _die(self, crash: CrashOnForce) -> None:
        self.world.count_fault(crash, f"dies {crash.when} force {crash.number}")
        if crash.when == "before":
            self._writing = []
        elif crash.when == "after":
            self.crash(len(self._writing))
        self.world.crash("coordinator", crash.down_s)

    def _forced(self, batch: list[Submission], effect: str) -> None:
        self._writing = []
        if effect == "full":
            refused = LogRefused("no space left on the device")
            self._keep_refused_ends_of(batch)
            self._deliver_failure(batch, refused)
        elif effect == "fsync failed":
            self._apply_seen(batch if self.world.random.random() < 0.5 else [])
            self._fail(batch, OSError("Input/output error"))
            return
        else:
            self._deliver(batch, self._apply_seen(batch))
        self._set_alarm()

    def _keep_refused_ends_of(self, batch: list[Submission]) -> None:
        later, self._waiting = self._waiting, []
        self._keep_refused_ends(batch)
        self._waiting += later

    def _apply_seen(self, batch: list[Submission]) -> Any:
        """Make a batch durable, with the checkers looking on."""
        before = dict(self._durable.transactions)
        applied = self._durable.apply(batch)
        self.world.observe.log_forced(before, self._durable.transactions)
        return applied
