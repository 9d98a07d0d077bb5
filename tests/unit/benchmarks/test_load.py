"""The two kinds of load."""

import asyncio
import itertools

import pytest

from benchmarks.worker.load import closed_loop, load_of, measure, open_loop
from benchmarks.worker.spec import Load, Spec


class Served:
    """Counts calls, and answers each after so many turns of the loop."""

    def __init__(self, turns: int = 3) -> None:
        self.numbers: list[int] = []
        self.now = self.most = 0
        self._turns = turns

    async def call(self, number: int) -> None:
        self.numbers.append(number)
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(self._turns):
            await asyncio.sleep(0)
        self.now -= 1


async def test_a_closed_loop_keeps_so_many_in_flight_and_makes_so_many_calls() -> None:
    served = Served()
    times_s = await closed_loop(served.call, itertools.count(), in_flight=4, seconds=60, count=21)
    assert (served.most, len(times_s)) == (4, 21)
    assert sorted(served.numbers) == [*range(21)]


async def test_a_closed_loop_ends_with_its_time() -> None:
    served = Served()
    assert await closed_loop(served.call, itertools.count(), in_flight=4, seconds=0, count=0) == []
    assert served.numbers == []


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    gate = asyncio.Event()
    waiting: list[int] = []

    async def call(number: int) -> None:
        waiting.append(number)
        if len(waiting) == 10:
            gate.set()  # only when all ten have begun is any of them answered
        await gate.wait()

    assert len(await open_loop(call, itertools.count(), rate=1000, seconds=0.01)) == 10


async def test_an_open_loop_counts_from_the_intended_start() -> None:
    """The first call stalls the whole process; the others were due meanwhile, and their wait counts."""
    loop = asyncio.get_running_loop()

    async def call(number: int) -> None:
        if number == 0:
            end_s = loop.time() + 0.05
            while loop.time() < end_s:
                pass

    times_s = await open_loop(call, itertools.count(), rate=1000, seconds=0.005)
    assert len(times_s) == 5
    assert min(times_s) > 0.04


async def test_a_call_that_fails_ends_the_measurement() -> None:
    async def call(number: int) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ExceptionGroup) as failed:
        await measure(call, Spec(kind="execute", seconds=60))
    assert failed.group_contains(ConnectionError)


def test_cpu_time_is_told_for_each_call_of_the_measured_time_only() -> None:
    load = load_of([0.001, 0.003], 0.5, {"client": 1.0, "server": 7.0}, {"client": 1.5, "server": 7.25})
    assert load.cpu_us == {"client": 250_000.0, "server": 125_000.0}
    assert (load.per_second, load.p50_ms, load.p99_ms) == (4.0, 1.0, 3.0)


def test_what_is_told_to_a_worker_and_by_it_survives_the_way() -> None:
    spec = Spec(kind="by_hand", dsns=("one", "two"), watch={"coordinator": 7}, rate=0.5)
    load = Load(done=3, seconds=1.5, cpu_us={"client": 1.0})
    assert Spec.from_json(spec.to_json()) == spec
    assert Load.from_json(load.to_json()) == load
