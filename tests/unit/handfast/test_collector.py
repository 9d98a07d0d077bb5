"""How long the garbage collector may hold up a process, counted in objects."""

import subprocess
import sys

import pytest

from handfast.collector import OLDER_PER_ALL, YOUNG_MAX, YOUNG_PER_OLDER

_LOOKS = """
import gc, sys
from handfast import collector

collector.calm()
frozen = gc.get_freeze_count()
young, older = [], []

def look(phase, info):
    if phase == "start":
        counts = gc.get_count()
        (older if info["generation"] else young).append(counts[0])

gc.callbacks.append(look)
kept = [[] for _ in range(int(sys.argv[1]))]
gc.callbacks.clear()
print(frozen > 1_000, len(young), max(young), len(older))
"""


def looks(objects: int) -> tuple[bool, int, int, int]:
    """Keep so many objects in a process of its own.

    Returns:
        Whether what was there before is left alone; how often new objects were looked at, and how many at most; how
        often older ones were.
    """
    ran = subprocess.run(
        [sys.executable, "-c", _LOOKS, str(objects)], capture_output=True, text=True, timeout=60, check=True
    )
    frozen, young, most, older = ran.stdout.split()
    return frozen == "True", int(young), int(most), int(older)


def test_a_look_is_brief_and_what_stays_is_seldom_looked_at_again() -> None:
    frozen, young, most, older = looks(objects=60_000)
    assert frozen
    assert 28 <= young + older <= 32
    assert most <= YOUNG_MAX + 100
    assert 1 <= older <= 3


_LATE_GARBAGE = """
import sys, weakref
from handfast import collector

class Connection: pass

collector.calm()
connection = Connection()
connection.itself, gone = connection, weakref.ref(connection)
kept = [[] for _ in range(int(sys.argv[1]))]
del connection
more = 0
while gone() is not None and more < 1_000_000:
    kept.append([])
    more += 1
print(more)
"""


@pytest.mark.parametrize("age", [0, 10_000, 100_000])
def test_what_becomes_garbage_late_is_found_before_long(age: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _LATE_GARBAGE, str(age)], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(ran.stdout) <= YOUNG_MAX * (YOUNG_PER_OLDER + 2) * (OLDER_PER_ALL + 2)
