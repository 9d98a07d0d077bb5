"""One store after another, open, for the same tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.decision_logs import RIGS, Rig


@pytest.fixture(params=RIGS)
async def closed_rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """A store that has not been opened yet."""
    rig = RIGS[request.param](tmp_path)
    yield rig
    rig.release()
    await rig.store.close()


@pytest.fixture
async def rig(closed_rig: Rig) -> Rig:
    """A store in its first life."""
    await closed_rig.store.open()
    return closed_rig
