"""A fault does what it says, and its healing undoes exactly that."""

from pathlib import Path
from typing import Any, cast

import pytest

from chaos.faults import (
    Cut,
    Fault,
    Kill,
    Pause,
    PausePostgres,
    Reach,
    Restart,
    StopPostgres,
    bandwidth,
    healing_order,
    latency,
    limit_data,
    reset_peer,
    silence,
    slicer,
)
from chaos.late import HeldUp, Rerouted
from chaos.stack import NotInTime


class Recorder:
    """Stands for everything that a fault can reach, and writes down what is asked of it."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.asked: list[str] = []
        self.log = Path("/nowhere/handfast.db")
        self._stubborn = stubborn

    def wire(self, source: str, target: str) -> Any:
        return Asked(f"{source}→{target}", self)

    def process(self, name: str) -> Any:
        return Asked(name, self)

    def postgres(self, name: str) -> Any:
        return Asked(f"postgres {name}", self)

    def start_process(self, name: str) -> None:
        self.asked.append(f"{name} start")

    def note(self, what: str) -> None:
        self.asked.append(what)
        if self._stubborn and what.endswith("stop"):
            raise NotInTime("it still runs")


class Asked:
    """One wire, process or server: any method is written down."""

    def __init__(self, name: str, recorder: Recorder) -> None:
        self._name, self._recorder = name, recorder

    def __str__(self) -> str:
        return self._name

    def __getattr__(self, method: str) -> Any:
        def asked(*words: Any, **settings: Any) -> None:
            told = [*map(str, words), *(f"{name}={value}" for name, value in settings.items() if name != "timeout_s")]
            self._recorder.note(" ".join([self._name, method, *told]))

        return asked


def done(fault: Fault, recorder: Recorder) -> tuple[list[str], list[str]]:
    """What a fault asked for when it began, and when it was healed."""
    reach = cast(Reach, recorder)
    fault.start(reach)
    begun, recorder.asked = recorder.asked, []
    fault.heal(reach)
    return begun, recorder.asked


@pytest.mark.parametrize(
    ("fault", "begun", "healed"),
    [
        (Cut("a", "b"), ["a→b disable"], ["a→b enable"]),
        (Kill("ledger"), ["ledger kill"], ["ledger start"]),
        (Pause("ledger"), ["ledger pause"], ["ledger resume"]),
        (Restart("ledger"), ["ledger stop"], ["ledger start"]),
        (StopPostgres("ledger"), ["postgres ledger stop immediate"], ["postgres ledger start"]),
        (PausePostgres("ledger"), ["postgres ledger pause"], ["postgres ledger resume"]),
    ],
    ids=lambda value: getattr(value, "label", None),
)
def test_links_processes_and_databases(fault: Fault, begun: list[str], healed: list[str]) -> None:
    assert done(fault, Recorder()) == (begun, healed)


@pytest.mark.parametrize(
    ("fault", "kind", "streams", "attributes"),
    [
        (silence("a", "b"), "timeout", ["upstream", "downstream"], {"timeout": 0}),
        (silence("a", "b", "to"), "timeout", ["upstream"], {"timeout": 0}),
        (silence("a", "b", "from"), "timeout", ["downstream"], {"timeout": 0}),
        (latency("a", "b", 50, jitter_ms=5), "latency", ["downstream"], {"latency": 50, "jitter": 5}),
        (bandwidth("a", "b", 8, "to"), "bandwidth", ["upstream"], {"rate": 8}),
        (limit_data("a", "b", 99), "limit_data", ["downstream"], {"bytes": 99}),
        (reset_peer("a", "b", after_ms=7, direction="to"), "reset_peer", ["upstream"], {"timeout": 7}),
        (
            slicer("a", "b", size=64, delay_us=10, direction="to"),
            "slicer",
            ["upstream"],
            {"average_size": 64, "size_variation": 32, "delay": 10},
        ),
    ],
    ids=lambda value: getattr(value, "label", None),
)
def test_a_toxic_is_added_to_each_half_and_taken_from_each(
    fault: Fault, kind: str, streams: list[str], attributes: dict[str, int]
) -> None:
    begun, healed = done(fault, Recorder())
    assert begun == [f"a→b add_toxic type={kind} stream={stream} attributes={attributes}" for stream in streams]
    assert healed == [f"a→b destroy_toxic {kind}_{stream}" for stream in streams]


def test_what_is_held_up_is_let_go_by_taking_the_latency_away_and_the_connection_outlives_its_source() -> None:
    begun, healed = done(HeldUp("a", "b"), Recorder())
    assert [words.split(" attributes")[0] for words in begun] == [
        "a→b, late add_toxic type=latency stream=upstream",
        "a→b, late add_toxic type=slow_close stream=upstream",
    ]
    assert healed == ["a→b, late destroy_toxic latency_upstream"]


def test_new_connections_are_led_past_the_late_wire_for_good() -> None:
    assert done(Rerouted("a", "b"), Recorder()) == (["a→b lead_past a→b, late"], [])


def test_a_process_that_does_not_stop_in_time_is_killed_as_an_init_system_would() -> None:
    begun, _ = done(Restart("ledger"), Recorder(stubborn=True))
    assert begun == ["ledger stop", "ledger kill"]


def test_every_fault_tells_in_a_sentence_what_it_does_and_to_whom() -> None:
    for fault in (
        Cut("a", "b"),
        Kill("a"),
        Pause("a"),
        Restart("a"),
        StopPostgres("a"),
        silence("a", "b"),
        HeldUp("a", "b"),
        Rerouted("a", "b"),
    ):
        assert fault.words.endswith(".")
        assert fault.lanes
        assert len(fault.label) < 30


def test_databases_heal_first_for_services_that_start_wait_for_theirs() -> None:
    paused, dead, cut = PausePostgres("accounts"), Restart("accounts"), Cut("ledger", "coordinator")
    assert healing_order([paused, dead, cut]) == [paused, cut, dead]
    assert healing_order([dead, paused]) == [paused, dead]
