"""The scenarios, one file each, in the order in which they teach.

A file is named after its scenario and holds SCENARIO. ``find`` loads the one asked for, ``every`` all of them.
"""

from __future__ import annotations

import importlib

from chaos.scenario import Scenario

NAMES = (
    "coordinator-dies-before-decision",
    "coordinator-dies-after-decision",
    "coordinator-dies-mid-phase-two",
    "participant-dies-before-vote",
    "participant-dies-after-vote",
    "database-dies-after-prepare",
    "partition-before-prepare",
    "partition-during-phase-two",
    "lost-vote",
    "lost-acknowledgement",
    "client-vanishes",
    "client-reply-lost",
    "slow-participant",
    "slow-network",
    "cut-mid-message",
    "coordinator-pauses",
    "hot-row-convoy",
    "deadlock-across-databases",
    "prepared-slots-exhausted",
    "log-disk-full",
    "operator-guesses-wrong",
    "vacuum-held-back",
    "rolling-restart",
    "everything",
)


def find(name: str) -> Scenario:
    """Load a scenario.

    Raises:
        LookupError: there is none of this name.
    """
    if name not in NAMES:
        raise LookupError(f"there is no scenario {name!r}; `handfast chaos list` shows them all")
    scenario: Scenario = importlib.import_module(f"chaos.scenarios.{name.replace('-', '_')}").SCENARIO
    return scenario


def every() -> list[Scenario]:
    """Load all, in order."""
    return [find(name) for name in NAMES]
