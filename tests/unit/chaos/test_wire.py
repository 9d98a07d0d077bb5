"""What connects two processes is hurt and healed as one, and never so that frames alone are lost."""

from typing import Any, cast

import pytest

from chaos.toxiproxy import Proxy, Wire


class Told:
    """Stands for a proxy; writes down what it is told, into a list shared by all."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.upstream = f"behind {name}"
        self._name, self._told = name, told

    def __getattr__(self, method: str) -> Any:
        return lambda *words, **settings: self._told.append(" ".join([self._name, method, *words, *settings.values()]))


def wire(name: str, told: list[str], *, frames: bool = True) -> Wire:
    calls, beside = (cast(Proxy, Told(f"{name} {what}", told)) for what in ("calls", "frames"))
    return Wire(calls, beside if frames else None)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda one: one.disable(), ["a calls disable", "a frames disable"]),
        (lambda one: one.enable(), ["a frames enable", "a calls enable"]),
        (lambda one: one.add_toxic(type="t"), ["a calls add_toxic t", "a frames add_toxic t"]),
        (lambda one: one.destroy_toxic("t"), ["a frames destroy_toxic t", "a calls destroy_toxic t"]),
    ],
)
def test_calls_are_hurt_first_and_healed_last(act: Any, told: list[str]) -> None:
    asked: list[str] = []
    act(wire("a", asked))
    assert asked == told


def test_frames_go_past_the_next_wire_by_its_frames_and_calls_by_its_calls() -> None:
    asked: list[str] = []
    wire("a", asked).lead_past(wire("b", asked))
    assert asked == ["a frames lead_to behind b frames", "a calls lead_to behind b calls"]


def test_a_wire_to_a_database_has_calls_only() -> None:
    asked: list[str] = []
    wire("a", asked, frames=False).disable()
    assert asked == ["a calls disable"]
