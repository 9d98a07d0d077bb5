"""Every decision log, driven at random beside a model of what a log is, with crashes and reopenings at any point.

The disk is held up while operations are submitted, so that the run decides when forces happen, and each run can be
repeated: the same ones are tried every time.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.log.chain import read_head
from coordinator.log.chained import chained
from coordinator.log.checking import check_books
from coordinator.log.identity import read_life
from coordinator.log.records import DecisionRecord, EndRecord
from coordinator.log.store import LogBroken, LogRefused
from coordinator.log.walk import Walk
from coordinator.protocol.states import Outcome
from tests.conformance.decision_logs import (
    ANSWER_WITHIN_S,
    COORDINATOR_ID,
    MemoryRig,
    Rig,
    SqliteRig,
    abort,
    commit,
    ended,
    gtrid,
    participant,
    resolution,
)
from tests.conformance.log_model import (
    REFUSED,
    Forget,
    Model,
    Operation,
    Raise,
    answers_of,
    submit,
    view_of,
    with_drops,
)

# Few of each, so that the same transaction is met again and again.
NUMBERS = st.integers(1, 3)
TIMES = st.integers(0, 3)
GTRIDS = [gtrid(number) for number in range(1, 4)]


class LogMachine(RuleBasedStateMachine):
    """A store, a model of it, and what was submitted since the last force."""

    make_rig: ClassVar[type[MemoryRig] | type[SqliteRig]]

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.pending: list[Operation] = []
        self.heard: list[Any] = []
        self.awaited = 0
        self.all_heard = asyncio.Event()
        self.epoch = 0
        self.registrations = 0
        self.rig: Rig = self.make_rig(Path(self.folder.name))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def open_first(self) -> None:
        self.open()

    def open(self) -> None:
        """Begin a life; nothing is forced in it before somebody wants that."""
        identity = self.run(self.rig.store.open())
        self.epoch += 1
        assert (identity.coordinator_id, identity.epoch) == (COORDINATOR_ID, self.epoch)
        self.rig.hold()
        self.pending, self.heard = [], []

    def teardown(self) -> None:
        self.rig.release()
        self.run(self.rig.store.close())
        self.runner.close()
        self.folder.cleanup()

    # -- submitting ------------------------------------------------------------------------------------------------

    def submit(self, operation: Operation) -> None:
        async def offer() -> None:
            submit(self.rig.store, operation, self.hear)

        self.pending.append(operation)
        self.run(offer())

    def hear(self, answer: Any) -> None:
        self.heard.append(answer)
        if len(self.heard) == self.awaited:
            self.all_heard.set()

    @rule(number=NUMBERS, decided_unix_ms=TIMES, rolls_back=st.booleans())
    def decide(self, number: int, decided_unix_ms: int, rolls_back: bool) -> None:
        if not self.waits(EndRecord, number):  # an end is offered after its decision's callback has run
            self.submit(abort(number) if rolls_back else commit(number, decided_unix_ms=decided_unix_ms))

    @rule(number=NUMBERS, at_unix_ms=TIMES, outcome=st.sampled_from(Outcome))
    def end(self, number: int, at_unix_ms: int, outcome: Outcome) -> None:
        if not self.waits(DecisionRecord, number):
            self.submit(ended(number, at_unix_ms=at_unix_ms, outcome=outcome))

    def waits(self, kind: type[DecisionRecord] | type[EndRecord], number: int) -> bool:
        return any(isinstance(one, kind) and one.gtrid == gtrid(number) for one in self.pending)

    @rule(resource=st.sampled_from("ab"), instance=st.sampled_from("ij"), address=st.sampled_from(["h:1", "h:2"]))
    def register(self, resource: str, instance: str, address: str) -> None:
        self.registrations += 1
        self.submit(participant(resource, instance, address, registered_unix_ms=self.registrations))

    @rule(number=NUMBERS)
    def resolve(self, number: int) -> None:
        self.submit(resolution(gtrid(number), reason=f"reason {len(self.pending)}"))

    @rule(number=NUMBERS)
    def forget(self, number: int) -> None:
        self.submit(Forget(gtrid(number)))

    @precondition(lambda self: not any(isinstance(one, Raise) for one in self.pending))
    @rule(horizon_unix_ms=TIMES)
    def forget_before(self, horizon_unix_ms: int) -> None:
        self.submit(Raise(horizon_unix_ms))

    # -- what becomes of it ----------------------------------------------------------------------------------------

    def force(self) -> None:
        """Let the disk go on until everything was answered."""

        async def wait() -> None:
            self.all_heard.clear()
            self.awaited = sum(not isinstance(one, EndRecord) for one in self.pending)
            self.rig.release()
            if len(self.heard) < self.awaited:
                await asyncio.wait_for(self.all_heard.wait(), ANSWER_WITHIN_S)

        self.resolve(1)  # ends alone would wait for something to travel with
        self.run(wait())
        self.rig.hold()

    @rule()
    def force_and_compare(self) -> None:
        self.force()
        assert self.heard == answers_of(self.model, self.pending)
        self.pending, self.heard = [], []

    @rule(number=NUMBERS, at_unix_ms=TIMES)
    def live_through_a_transaction(self, number: int, at_unix_ms: int) -> None:
        """What chance alone brings about too rarely."""
        self.decide(number, at_unix_ms, rolls_back=False)
        self.force_and_compare()
        self.end(number, at_unix_ms, Outcome.COMMITTED)
        self.force_and_compare()

    @rule()
    def close_and_reopen(self) -> None:
        self.rig.release()
        self.run(self.rig.store.close())
        dropping: list[Operation] = [one for one in self.pending if isinstance(one, Raise)]
        for operation in self.pending:
            self.model.apply(operation)
        self.open()
        if dropping:  # closing ends it after the step that is under way, so some of it may be left to do
            self.adopt_one_of([self.model, self.model.after(with_drops(dropping))])

    @rule(kept=st.integers(0, 1000))
    def crash_and_reopen(self, kept: int) -> None:
        """The process dies; of what waited, some first part may have reached the disk."""
        operations = with_drops([*self.pending, resolution(gtrid(1), reason=f"reason {len(self.pending)}")])
        self.crash(kept / 1000)
        self.open()
        self.adopt_one_of([self.model.after(operations[:count]) for count in range(len(operations) + 1)])

    def crash(self, kept: float) -> None:
        """Lose the process, and of what its last forces wrote all but this part."""
        raise NotImplementedError

    def adopt_one_of(self, models: list[Model]) -> None:
        """Go on with the model that the store turns out to be."""
        found = view_of(self.rig.store, GTRIDS)
        possible = [model for model in models if model.view(GTRIDS) == found]
        assert possible, f"the log is none of what it may be: {found}"
        self.model = possible[0]

    @precondition(lambda self: self.pending == [])
    @rule(number=NUMBERS)
    def refuse(self, number: int) -> None:
        """The disk is full for one force."""
        self.rig.failures = [LogRefused("the disk is full")]
        self.submit(commit(number))
        self.force_refused()

    def force_refused(self) -> None:
        before = len(self.rig.forces)
        self.force()
        refused = self.rig.forces[before]
        wanted = [*self.pending]
        answers = [REFUSED] * refused + answers_of(self.model, wanted[refused:])
        assert self.heard == answers
        self.pending, self.heard = [], []

    @rule(number=NUMBERS)
    def break_and_reopen(self, number: int) -> None:
        """A force fails so that nobody knows what it wrote."""
        self.rig.failures = [OSError("fsync failed")]
        self.submit(resolution(gtrid(number)))
        self.force()
        assert {type(answer) for answer in self.heard} == {LogBroken}
        assert len(self.rig.broken) == 1
        self.rig.broken.clear()
        self.rig.failures.clear()
        self.rig.release()
        self.run(self.rig.store.close())
        self.open()

    @invariant()
    def what_is_durable_is_what_can_be_read(self) -> None:
        if self.epoch:
            assert view_of(self.rig.store, GTRIDS) == self.model.view(GTRIDS)


class MemoryMachine(LogMachine):
    make_rig = MemoryRig

    def crash(self, kept: float) -> None:
        assert isinstance(self.rig, MemoryRig)
        self.rig.crash(int(kept * (len(self.pending) + 1)))


class SqliteMachine(LogMachine):
    make_rig = SqliteRig

    def crash(self, kept: float) -> None:
        """The write-ahead log is cut somewhere in what the last forces appended; or none of them came to their end."""
        assert isinstance(self.rig, SqliteRig)
        wal = Path(f"{self.rig.path}-wal")
        before = wal.stat().st_size
        if kept:
            self.force()
        cut = before + int(kept * (wal.stat().st_size - before))
        folder = Path(tempfile.mkdtemp(dir=self.folder.name))
        shutil.copy(self.rig.path, folder)
        shutil.copy(wal, folder)
        with (folder / wal.name).open("r+b") as file:
            file.truncate(cut)
        self.rig.release()
        self.run(self.rig.store.close())
        self.rig = SqliteRig(folder)

    @precondition(lambda self: self.pending == [])
    @invariant()
    def the_chain_is_whole(self) -> None:
        if self.epoch:
            assert isinstance(self.rig, SqliteRig)
            with closing(sqlite3.connect(f"{self.rig.path.as_uri()}?mode=ro", uri=True)) as connection:
                assert [*Walk().along(chained(connection), read_head(connection))] == []
                assert [*check_books(connection, read_life(connection))] == []


def bounded(examples: int) -> settings:
    """The same runs each time."""
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


TestMemoryLog = MemoryMachine.TestCase
TestMemoryLog.settings = bounded(150)
TestSqliteLog = SqliteMachine.TestCase
TestSqliteLog.settings = bounded(30)
