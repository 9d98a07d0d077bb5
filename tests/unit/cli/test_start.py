"""What a command loads before it does anything: branches wait in doubt for a coordinator, and a person for the help."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from cyclopts import App
from rich.console import Console

from coordinator.cli.app import COMMANDS, make_app


def listing(app: App) -> str:
    shown = io.StringIO()
    app.help_print([], console=Console(file=shown, width=100))
    return shown.getvalue()


def loaded(code: str) -> set[str]:
    """The packages that a new interpreter has loaded after the code."""
    told = f"{code}\nimport sys; print('loaded', *{{name.split('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=60)
    return set(ran.stdout.splitlines()[-1].split())


def test_the_list_of_commands_says_of_each_what_its_own_help_says_first() -> None:
    assert listing(make_app("--help")) == listing(make_app())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_chosen_has_the_whole_of_its_help(name: str) -> None:
    chosen, all_of_them = io.StringIO(), io.StringIO()
    make_app(name).help_print([name], console=Console(file=chosen, width=100))
    make_app().help_print([name], console=Console(file=all_of_them, width=100))
    assert chosen.getvalue() == all_of_them.getvalue()


def test_the_list_of_commands_loads_no_command() -> None:
    heavy = {"grpc", "google", "pydantic", "cryptography", "psycopg"}
    assert loaded("from coordinator.cli.app import run; run(['--help'])") & heavy == set()


def test_the_coordinator_loads_nothing_that_it_does_not_need_to_recover() -> None:
    heavy = {"cryptography", "numpy", "psutil", "psycopg", "pydantic_settings", "sqlite_utils", "markdown_it"}
    assert loaded("import coordinator.cli.serving, coordinator.rpc.server") & heavy == set()
