"""docs/cli.md and docs/errors.md tell all there is, and --help tells the truth."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cyclopts import App

from coordinator.cli.app import make_app
from coordinator.cli.exit_codes import MEANINGS
from coordinator.cli.serving import flag_name
from coordinator.config import ENV_PREFIX, CoordinatorConfig
from tests.architecture.source_tree import REPOSITORY
from tests.unit.cli.conftest import RunCommand

PAGE = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
SHARED = "What all reports share"


def commands(parent: App, path: tuple[str, ...] = ("handfast",)) -> Iterator[tuple[str, App]]:
    """Each command that does something, by its full name."""
    for name in parent:
        if not name.startswith("-"):
            child = parent[name]
            if child.default_command is not None:
                yield " ".join((*path, name)), child
            yield from commands(child, (*path, name))


APP = make_app()
COMMANDS = dict(commands(APP))


def options(command: App) -> set[str]:
    found = {name for argument in command.assemble_argument_collection() for name in argument.names}
    return {name for name in found if name.startswith("--")}


def section(title: str) -> str:
    """The page's text under a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/cli.md has no section {title!r}"
    return found[1]


def test_the_commands_are_those_that_were_promised() -> None:
    looking = ("status", "doctor", "indoubt", "participants", "operations", "audit", "explain", "version")
    listing = ("transactions list", "transactions show", "transactions watch")
    doing = ("serve", "resolve", "demo", "chaos", "certs init", "log verify", "log export")
    assert {*COMMANDS} == {f"handfast {name}" for name in (*looking, *listing, *doing)}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_is_documented(name: str) -> None:
    described = section(name)
    if "--address" in options(COMMANDS[name]) and name != "handfast serve":
        assert f"`{name.removeprefix('handfast ')}`" in re.sub(r"\s+", " ", section(SHARED)), "it shares the options"
        described += section(SHARED)
    undocumented = {option for option in options(COMMANDS[name]) if f"`{option}`" not in described}
    assert undocumented == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_documented_that_is_not_there(name: str) -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)` \|", section(name), re.MULTILINE)
    assert {*rows} - options(COMMANDS[name]) == set()


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(--[a-z-]+)` \| (.*?) \|", section("handfast serve"), re.MULTILINE))
    for setting, info in CoordinatorConfig.model_fields.items():
        default = info.get_default(call_default_factory=True)
        if default and setting != "config":
            shown = f"{default:g}" if isinstance(default, float) else str(default)
            assert rows[flag_name(setting)] == f"`{shown}`", setting


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "handfast chaos"])
async def test_every_help_ends_with_the_exit_codes(handfast: RunCommand, name: str) -> None:
    ran = await handfast(*name.split()[1:], "--help")
    words = " ".join(ran.out.split())
    assert ran.code == 0
    assert [code for code, meaning in MEANINGS.items() if f"{code.value}: {meaning}" not in words] == []


def test_the_page_and_the_help_give_the_same_exit_codes() -> None:
    rows = re.findall(r"^\| (\d) \| (.*?) \|$", section(SHARED), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == {code.value: text for code, text in MEANINGS.items()}


async def test_the_help_of_serve_names_each_settings_variable(handfast: RunCommand) -> None:
    words = re.sub(r"[│\s]+", " ", (await handfast("serve", "--help")).out)
    missing = [name for name in CoordinatorConfig.model_fields if f"{ENV_PREFIX}{name.upper()}]" not in words]
    assert missing == []


def test_every_link_inside_the_page_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    assert {*re.findall(r"\]\(#([^)]*)\)", PAGE)} - headings == set()


def test_the_page_of_errors_is_what_the_catalog_gives() -> None:
    finished = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "generate_error_docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
