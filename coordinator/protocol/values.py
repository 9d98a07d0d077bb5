"""The cheap form of a value.

Each transaction makes some thirty small values: events, effects, records. A frozen dataclass assigns each of its fields
by a call of ``object.__setattr__``, at five times the price of a plain assignment. ``value`` makes a dataclass that
compares, hashes and has slots like a frozen one, and is made at the plain price. That nothing is assigned afterwards is
what mypy checks: to it the class is frozen.

Some of them say the same of the same branch in every transaction, and branches are few: ``made_once`` gives the one
that was made before, at a quarter of the price.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast, dataclass_transform

P = ParamSpec("P")
T = TypeVar("T")

REMEMBERED = 4096
"""How many values of one kind are remembered."""


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a value: compared and hashed by its content, with slots, frozen to mypy."""
    return dataclass(slots=True, unsafe_hash=True)(cls)


def made_once(kind: Callable[P, T]) -> Callable[P, T]:
    """Make values of a kind only once for the same content; for those of which there are few."""
    return cast(Callable[P, T], lru_cache(REMEMBERED)(kind))
