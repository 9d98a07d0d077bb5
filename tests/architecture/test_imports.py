"""Imports point one way, so that the protocol can be read, tested and reused without what surrounds it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.source_tree import REPOSITORY, SHIPPED, Module, imports, read_modules

# Each part of the repository, and the other parts it may import. A module belongs to the longest part that begins its
# name; `coordinator` alone is therefore what lies beside the layers, below all of them but the protocol.
MAY_IMPORT: dict[str, set[str]] = {
    "handfast": set(),
    "participant": {"handfast"},
    "coordinator": {"handfast"},
    "coordinator.protocol": set(),
    "coordinator.log": {"handfast", "coordinator", "coordinator.protocol"},
    "coordinator.runtime": {"handfast", "coordinator", "coordinator.protocol", "coordinator.log"},
    "coordinator.rpc": {"handfast", "coordinator", "coordinator.protocol", "coordinator.log", "coordinator.runtime"},
}
OUTERMOST = {"coordinator.cli", "coordinator.__main__", "chaos", "benchmarks", "examples"}
PARTS = MAY_IMPORT.keys() | OUTERMOST

# The programs around the product. `handfast serve` must not load them, so the command imports them where it runs them.
PROGRAMS = {"chaos", "benchmarks", "examples"}

# Standard, and still not for the protocol: input, output, clocks, chance, threads, logging.
SANS_IO_BANS = {
    *("asyncio", "concurrent", "multiprocessing", "queue", "sched", "selectors", "signal", "subprocess", "threading"),
    *("http", "io", "logging", "os", "pathlib", "shutil", "socket", "sqlite3", "ssl", "sys", "tempfile", "warnings"),
    *("random", "secrets", "time", "uuid"),
}


def part_of(name: str) -> str | None:
    """The part a dotted name belongs to; None when it is not ours."""
    found = [part for part in PARTS if name == part or name.startswith(f"{part}.")]
    return max(found, key=len, default=None)


def wrong_directions(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        importer = part_of(module.name)
        if importer is None or importer in OUTERMOST:
            continue
        allowed = MAY_IMPORT[importer] | {importer}
        for node, name in imports(module):
            target = part_of(name)
            if target is not None and target not in allowed:
                yield f"{module.at(node)}: {importer} may not import {target}"


def impure_protocol_imports(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        if part_of(module.name) != "coordinator.protocol":
            continue
        for node, name in imports(module):
            top = name.split(".")[0]
            if part_of(name) is None and (top not in sys.stdlib_module_names or top in SANS_IO_BANS):
                yield f"{module.at(node)}: the protocol may not import {top}"


def eager_program_imports(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        if part_of(module.name) not in {"coordinator.cli", "coordinator.__main__"}:
            continue
        functions = [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        lazy = {id(inner) for function in functions for inner in ast.walk(function)}
        for node, name in imports(module):
            if part_of(name) in PROGRAMS and id(node) not in lazy:
                yield f"{module.at(node)}: import {name} inside the command that runs it"


def test_imports_point_one_way() -> None:
    assert [*wrong_directions(read_modules(REPOSITORY, SHIPPED))] == []


def test_the_protocol_imports_only_the_pure_part_of_the_standard_library() -> None:
    assert [*impure_protocol_imports(read_modules(REPOSITORY, SHIPPED))] == []


def test_the_command_imports_demo_and_lab_only_where_it_runs_them() -> None:
    assert [*eager_program_imports(read_modules(REPOSITORY, SHIPPED))] == []


@pytest.mark.parametrize(
    ("path", "statement"),
    [
        ("coordinator/protocol/machine.py", "from coordinator.log import store"),
        ("coordinator/protocol/machine.py", "import handfast"),
        ("coordinator/log/sqlite.py", "from coordinator import runtime"),
        ("coordinator/log/sqlite.py", "def later():\n    import coordinator.runtime.clock"),
        ("coordinator/runtime/driver.py", "from ..rpc.codec import encode"),
        ("coordinator/rpc/codec.py", "import coordinator.cli"),
        ("coordinator/failpoints.py", "import coordinator.runtime"),
        ("participant/server.py", "import coordinator.protocol"),
        ("handfast/client.py", "import participant"),
        ("handfast/client.py", "from coordinator.protocol import states"),
        ("coordinator/runtime/driver.py", "import chaos.faults"),
        ("participant/server.py", "from examples.bank import accounts"),
    ],
)
def test_an_import_against_the_direction_is_found(tmp_path: Path, path: str, statement: str) -> None:
    assert len({*wrong_directions(_tree(tmp_path, path, statement))}) == 1


@pytest.mark.parametrize("statement", ["import grpc", "import asyncio", "from time import monotonic", "import psycopg"])
def test_an_impure_import_in_the_protocol_is_found(tmp_path: Path, statement: str) -> None:
    modules = _tree(tmp_path, "coordinator/protocol/machine.py", statement)
    assert len({*impure_protocol_imports(modules)}) == 1


def test_an_eager_import_of_the_lab_is_found(tmp_path: Path) -> None:
    assert [*eager_program_imports(_tree(tmp_path, "coordinator/cli/chaos.py", "import chaos.scenarios"))] != []


@pytest.mark.parametrize(
    ("path", "statement"),
    [
        (
            "coordinator/protocol/machine.py",
            "from dataclasses import dataclass\nfrom coordinator.protocol import events",
        ),
        ("coordinator/log/sqlite.py", "from coordinator.protocol.states import Decision"),
        ("coordinator/rpc/codec.py", "from handfast.v1 import types_pb2\nimport coordinator.runtime.driver"),
        ("coordinator/cli/demo.py", "def demo():\n    from chaos import stack"),
        ("participant/server.py", "import handfast"),
        ("chaos/stack.py", "import coordinator.cli, participant"),
    ],
)
def test_an_import_along_the_direction_is_allowed(tmp_path: Path, path: str, statement: str) -> None:
    modules = _tree(tmp_path, path, statement)
    findings = [*wrong_directions(modules), *impure_protocol_imports(modules), *eager_program_imports(modules)]
    assert findings == []


def _tree(root: Path, path: str, text: str) -> list[Module]:
    """A repository of one module."""
    (root / path).parent.mkdir(parents=True)
    (root / path).write_text(text)
    return read_modules(root, SHIPPED)
