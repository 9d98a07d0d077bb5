"""A coordinator's Admin service for each test, and the command pointed at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest

from coordinator.cli.app import run_async
from tests.unit.cli.fake_admin import FakeAdmin, serving
from tests.unit.cli.sample_answers import answers


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


RunCommand = Callable[..., Awaitable[Ran]]


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No setting of the machine that runs the tests, and 100 columns."""
    monkeypatch.chdir(tmp_path)
    for name in ("HANDFAST_ADDRESS", "HANDFAST_TLS_CA", "HANDFAST_CLIENT_CERT", "HANDFAST_CLIENT_KEY", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
async def admin() -> AsyncIterator[FakeAdmin]:
    """A coordinator that has an answer to everything."""
    async with serving(FakeAdmin(answers=cast(Any, answers()))) as found:
        yield found


@pytest.fixture
def handfast(admin: FakeAdmin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    """Run the command against that coordinator."""
    monkeypatch.setenv("HANDFAST_ADDRESS", admin.address)

    async def run(*tokens: str) -> Ran:
        code = await run_async(tokens)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
