"""The repository keeps itself tidy: time and chance come in by one door, and no room holds two ideas."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.source_tree import REPOSITORY, Module, imports, read_modules

# Where the clock is read, where a task sleeps and where chance is drawn: everywhere else they are parameters, so that a
# test can move the clock and a seed can replay a run.
CLOCK = {"time", "asyncio.sleep", "datetime.now"}
ENTROPY = {"random", "secrets", "uuid", "os.urandom"}
MAY_USE: dict[str, set[str]] = {
    "coordinator.runtime.clock": CLOCK,
    "coordinator.runtime.entropy": ENTROPY,
    "participant.clock": CLOCK | ENTROPY,
    "handfast.clock": CLOCK | {"random"},  # the client's retries are jittered
}
GUARDED = ("handfast", "coordinator", "participant")
UNGUARDED = ("coordinator.cli", "coordinator.__main__")

VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


def uncontrolled_inputs(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        if module.name.startswith(UNGUARDED):
            continue
        allowed = MAY_USE.get(module.name, set())
        found: list[tuple[ast.stmt | ast.expr, str]] = [*_imported_inputs(module), *_called_inputs(module)]
        for node, used in found:
            if used not in allowed:
                yield f"{module.at(node)}: {used} is not used here; take it as a parameter"


def _imported_inputs(module: Module) -> Iterator[tuple[ast.stmt, str]]:
    """Modules that are nothing but a clock or a source of chance: importing one is using it."""
    watched = CLOCK | ENTROPY
    for node, name in imports(module):
        top = name.split(".")[0]
        if top in watched:
            yield node, top
        elif name in watched:
            yield node, name


def _called_inputs(module: Module) -> Iterator[tuple[ast.expr, str]]:
    """The one function of a module that is otherwise welcome, by whatever name the module goes here."""
    known_as = {"datetime": "datetime", "date": "datetime"}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            known_as |= {alias.asname: alias.name for alias in node.names if alias.asname}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            owner = known_as.get(owner.rsplit(".")[-1], owner)
            used = {"utcnow": "now", "today": "now"}.get(node.attr, node.attr) if owner == "datetime" else node.attr
            if f"{owner}.{used}" in {"asyncio.sleep", "datetime.now", "os.urandom"}:
                yield node, f"{owner}.{used}"


def vague_names(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        for vague in VAGUE_NAMES.intersection(module.name.split(".")):
            yield f"{module.path}: '{vague}' does not say what it holds"


def long_files(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        lines = len(module.text.splitlines())
        if lines > FILE_LINES_MAX:
            yield f"{module.path}: {lines} lines, more than {FILE_LINES_MAX}"


def long_functions(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, Function) and (lines := _lines_without_docstring(node)) > FUNCTION_LINES_MAX:
                yield f"{module.at(node)}: {node.name} has {lines} lines, more than {FUNCTION_LINES_MAX}"


def _lines_without_docstring(function: Function) -> int:
    """Explaining a function does not make it longer."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is None:
        return lines
    docstring = function.body[0]
    return lines - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


def test_time_and_chance_come_in_by_one_module_each() -> None:
    assert [*uncontrolled_inputs(read_modules(REPOSITORY, GUARDED))] == []


def test_every_module_is_named_for_what_it_holds() -> None:
    assert [*vague_names(read_modules(REPOSITORY))] == []


def test_no_file_is_too_long() -> None:
    assert [*long_files(read_modules(REPOSITORY))] == []


def test_no_function_is_too_long() -> None:
    assert [*long_functions(read_modules(REPOSITORY))] == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("coordinator/runtime/driver.py", "import time"),
        ("coordinator/log/sqlite.py", "from time import monotonic as now"),
        ("coordinator/protocol/machine.py", "import uuid"),
        ("coordinator/runtime/clock.py", "import random"),
        ("coordinator/runtime/entropy.py", "import time"),
        ("participant/recovery.py", "import asyncio\nasync def wait(): await asyncio.sleep(1)"),
        ("participant/recovery.py", "import asyncio as aio\nasync def wait(): await aio.sleep(1)"),
        ("participant/recovery.py", "from asyncio import sleep"),
        ("handfast/client.py", "import secrets"),
        ("handfast/client.py", "import datetime\nat = datetime.datetime.now()"),
        ("handfast/client.py", "from datetime import datetime\nat = datetime.utcnow()"),
        ("handfast/client.py", "import os\nkey = os.urandom(8)"),
    ],
)
def test_a_second_door_for_time_or_chance_is_found(tmp_path: Path, path: str, text: str) -> None:
    assert len({*uncontrolled_inputs(_tree(tmp_path, path, text))}) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("coordinator/runtime/clock.py", "import time, asyncio\nasync def wait(): await asyncio.sleep(1)"),
        ("coordinator/runtime/entropy.py", "import random\nimport secrets"),
        ("coordinator/cli/watch.py", "import time"),
        ("coordinator/runtime/driver.py", "async def wait(clock): await clock.sleep(clock.now())"),
        ("handfast/client.py", "from datetime import timedelta\nimport asyncio\nasyncio.timeout(1)"),
    ],
)
def test_the_doors_themselves_and_injected_clocks_are_allowed(tmp_path: Path, path: str, text: str) -> None:
    assert [*uncontrolled_inputs(_tree(tmp_path, path, text))] == []


@pytest.mark.parametrize("path", ["coordinator/utils.py", "chaos/common/__init__.py", "tests/helpers.py"])
def test_a_vague_name_is_found(tmp_path: Path, path: str) -> None:
    assert len([*vague_names(_tree(tmp_path, path, ""))]) == 1


def test_a_file_is_too_long_from_the_first_line_past_the_limit(tmp_path: Path) -> None:
    at_the_limit = _tree(tmp_path / "fits", "chaos/faults.py", "x = 1\n" * FILE_LINES_MAX)
    past_the_limit = _tree(tmp_path / "long", "chaos/faults.py", "x = 1\n" * (FILE_LINES_MAX + 1))
    assert (len([*long_files(at_the_limit)]), len([*long_files(past_the_limit)])) == (0, 1)


def test_a_function_is_too_long_from_the_first_line_past_the_limit(tmp_path: Path) -> None:
    head = 'async def long():\n    """What it does,\n    and why."""\n'
    at_the_limit = _tree(tmp_path / "fits", "chaos/faults.py", head + "    x = 1\n" * (FUNCTION_LINES_MAX - 1))
    past_the_limit = _tree(tmp_path / "long", "chaos/faults.py", head + "    x = 1\n" * FUNCTION_LINES_MAX)
    assert (len([*long_functions(at_the_limit)]), len([*long_functions(past_the_limit)])) == (0, 1)


def _tree(root: Path, path: str, text: str) -> list[Module]:
    """A repository of one module."""
    (root / path).parent.mkdir(parents=True)
    (root / path).write_text(text)
    return read_modules(root)
