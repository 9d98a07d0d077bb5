"""Chance. The only module of the coordinator that draws it."""

from __future__ import annotations

import random
import secrets
from typing import Protocol

from handfast.xid import COORDINATOR_ID_LENGTH, ID_ALPHABET


class Entropy(Protocol):
    """Where chance comes from: the machine in production, a seed in tests."""

    def jitter(self) -> float:
        """A number in [0, 1)."""

    def coordinator_id(self) -> str:
        """A new coordinator's id: eight characters of ``ID_ALPHABET``."""


class SystemEntropy:
    """The machine's."""

    def jitter(self) -> float:
        return random.random()

    def coordinator_id(self) -> str:
        return "".join(secrets.choice(ID_ALPHABET) for _ in range(COORDINATOR_ID_LENGTH))


class SeededEntropy:
    """The same sequence for the same seed.

    Args:
        seed: any number.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def jitter(self) -> float:
        return self._random.random()

    def coordinator_id(self) -> str:
        return "".join(self._random.choice(ID_ALPHABET) for _ in range(COORDINATOR_ID_LENGTH))
