"""The cheap form of a value, for those that every message or call makes anew.

A frozen dataclass assigns each of its fields by a call of ``object.__setattr__``, at five times the price of a plain
assignment. ``value`` makes a dataclass that compares, hashes and has slots like a frozen one, and is made at the plain
price. That nothing is assigned afterwards is what mypy checks: to it the class is frozen. (The two protocol cores have
the same for themselves, because they import nothing.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a value: compared and hashed by its content, with slots, frozen to mypy."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
