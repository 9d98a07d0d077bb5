"""Virtual time: event loops that share one clock and one queue, so that a run is a function of its seed.

Each simulated process has a loop of its own, which is what dies with it: the steps of a dead loop are not run any more,
and those of a paused one wait until it goes on. All loops put their steps into one ``Scheduler``. It runs what is ready
in the order in which it became ready, and when nothing is, time jumps to the next timer. Nothing here knows a socket, a
thread or the machine's clock.

Tasks are hashed by their number, not by their address, so that a set of tasks is walked in the same order in each run.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from itertools import count
from typing import Any, TypeVarTuple

DRAIN_ROUNDS_MAX = 50

Args = TypeVarTuple("Args")
Call = Callable[[*Args], object]


class Step(asyncio.TimerHandle):
    """One callback of one loop; the unit in which the simulation moves."""

    __slots__ = ("owner", "timed")

    def __init__(
        self, owner: ProcessLoop, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self.owner = owner
        self._callback = callback
        self._args = args
        self._context = context or copy_context()
        self._cancelled = False
        self.timed = False

    def cancel(self) -> None:
        self._cancelled = True
        self._args = ()

    def cancelled(self) -> bool:
        return self._cancelled

    def run(self) -> None:
        """Call back."""
        self._context.run(self._callback, *self._args)


class _Task(asyncio.Task[Any]):
    """A task that hashes by its number."""

    def __init__(self, number: int, coroutine: Any, **rest: Any) -> None:
        self._number = number
        super().__init__(coroutine, **rest)

    def __hash__(self) -> int:
        return self._number


class Scheduler:
    """The queue that all loops share, and the time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.steps = 0
        self.stopped = False
        self.ready: deque[Step] = deque()
        self.timers: list[tuple[float, int, Step]] = []
        self.numbers = count()

    def run_until(self, end_s: float) -> None:
        """Run everything up to a moment, or until ``stopped``."""
        try:
            while not self.stopped:
                if self.ready:
                    self._run(self.ready.popleft())
                elif not self._advance(end_s):
                    self.now_s = max(self.now_s, end_s)
                    return
        finally:
            events._set_running_loop(None)

    def _advance(self, end_s: float) -> bool:
        """Go to the next timer; False when none is due by the end."""
        timers = self.timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers or timers[0][0] > end_s:
            return False
        self.now_s = max(self.now_s, timers[0][0])
        while timers and timers[0][0] <= self.now_s:
            self.ready.append(heapq.heappop(timers)[2])
        return True

    def _run(self, step: Step) -> None:
        owner = step.owner
        if step._cancelled:
            return
        if not owner.alive:
            if not step.timed:
                owner.unheard.append(step)
            return
        if owner.parked is not None:
            owner.parked.append(step)
            return
        self.steps += 1
        owner.steps += 1
        if owner.steps == owner.crash_at_step:
            owner.unheard.append(step)
            owner.on_crash_due()
            return
        events._set_running_loop(owner)
        try:
            step.run()
        except asyncio.CancelledError:
            if not owner.draining:
                raise
        except Exception as problem:  # noqa: BLE001 - handed to whoever watches for defects
            owner.call_exception_handler({"message": "a callback failed", "exception": problem})

    def drain(self, loops: list[ProcessLoop]) -> None:
        """End every task of these loops, so that no coroutine is left half-way for the garbage collector."""
        for _ in range(DRAIN_ROUNDS_MAX):
            open_tasks = [task for loop in loops for task in loop.tasks if not task.done()]
            if not open_tasks:
                break
            for loop in loops:
                self.ready.extend((*loop.unheard, *(loop.parked or ())))
                loop.unheard.clear()
                loop.alive, loop.parked, loop.draining, loop.crash_at_step = True, None, True, -1
            for task in open_tasks:
                task.cancel()
            self.stopped = False
            self.run_until(self.now_s)
        for loop in loops:
            loop.alive = False
            loop.tasks.clear()
        self.ready.clear()
        self.timers.clear()


class ProcessLoop(asyncio.BaseEventLoop):
    """The event loop of one life of one process.

    Args:
        scheduler: the queue and the time.
        name: for messages.
        on_defect: told of exceptions that nobody handled.

    Attributes:
        alive: False once the process has crashed: its steps are not run any more.
        parked: the steps of a paused process; None when it is not paused.
        unheard: the steps of a dead process; run only to end its tasks, when all is over.
        crash_at_step: the step instead of which the process crashes.
        on_crash_due: called then.
    """

    def __init__(self, scheduler: Scheduler, name: str, on_defect: Callable[[str, str], None]) -> None:
        # Not BaseEventLoop's: that one opens nothing, and holds nothing that is needed here.
        self.scheduler = scheduler
        self.name = name
        self.alive = True
        self.draining = False
        self.parked: list[Step] | None = None
        self.steps = 0
        self.crash_at_step = -1
        self.on_crash_due: Callable[[], None] = lambda: None
        self.tasks: list[_Task] = []
        self.unheard: list[Step] = []
        self._on_defect = on_defect

    def __repr__(self) -> str:
        return f"<loop of {self.name}>"

    def is_closed(self) -> bool:
        return True  # nothing to close

    def is_running(self) -> bool:
        return True

    def get_debug(self) -> bool:
        return False

    def time(self) -> float:
        return self.scheduler.now_s

    def call_soon(self, callback: Call[*Args], *args: *Args, context: Context | None = None) -> Step:
        step = Step(self, callback, args, context)
        (self.scheduler.ready if self.alive else self.unheard).append(step)
        return step

    def call_soon_threadsafe(self, callback: Call[*Args], *args: *Args, context: Context | None = None) -> Step:
        return self.call_soon(callback, *args, context=context)

    def call_later(self, delay: float, callback: Call[*Args], *args: *Args, context: Context | None = None) -> Step:
        return self.call_at(self.scheduler.now_s + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Call[*Args], *args: *Args, context: Context | None = None) -> Step:
        step = Step(self, callback, args, context)
        step.timed = True
        if self.alive and not self.draining:
            heapq.heappush(self.scheduler.timers, (when, next(self.scheduler.numbers), step))
        return step

    def create_task(
        self, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], *, name: object = None, context: Any = None
    ) -> asyncio.Task[Any]:
        if self.draining:
            coro.close()
            raise asyncio.CancelledError("all is over, and nothing new begins")
        task = _Task(next(self.scheduler.numbers), coro, loop=self, name=name, context=context)
        self.tasks.append(task)
        if len(self.tasks) > 256:
            self.tasks = [one for one in self.tasks if not one.done()]
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        problem = context.get("exception")
        if self.alive and not self.draining and problem is not None:
            self._on_defect(self.name, f"{context.get('message')}: {type(problem).__name__}: {problem}")

    # -- what a process goes through -------------------------------------------------------------------------------

    def pause(self) -> None:
        """Run no step until ``resume``; time goes on."""
        if self.alive and self.parked is None:
            self.parked = []

    def resume(self) -> None:
        """Run what came meanwhile."""
        parked, self.parked = self.parked, None
        self.scheduler.ready.extend(parked or ())
