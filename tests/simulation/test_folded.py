"""Whatever the simulator makes of a transaction, it unfolds to what it was."""

from __future__ import annotations

from collections import Counter

import pytest

from coordinator.runtime.folded import folded, unfolded
from coordinator.runtime.in_memory import Finished
from coordinator.runtime.running import Running
from tests.simulation.workload import scenario
from tests.simulation.world import run
from tests.unit.runtime.alike import every_field

SEEDS = 300


def test_every_transaction_unfolds_to_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    keep = Finished.__setitem__

    def kept(finished: Finished, gtrid: str, running: Running) -> None:
        whole = folded(running)
        if whole is None:
            seen["as it is"] += 1
        else:
            # Who waits is told when it is kept already, and waits for nothing more then.
            assert every_field(unfolded(gtrid, whole)) == every_field(running) | {"waiters": []}
            seen[running.transaction.state.value] += 1
            seen["recovered"] += running.recovered
        keep(finished, gtrid, running)

    monkeypatch.setattr(Finished, "__setitem__", kept)
    for seed in range(SEEDS):
        assert run(scenario(seed)).violation is None
    assert min(seen["committed"], seen["aborted"]) >= SEEDS
    assert min(seen["recovered"], seen["as it is"]) >= 10
