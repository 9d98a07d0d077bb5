"""Running what the pages show, on other ports than they show."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

from tests.docs.pages import Block, session

PROGRAMS = Path(sys.executable).parent
COMMAND_S_MAX = 30.0
GTRID = re.compile(r"\b[a-z0-9]{8}-[0-9a-z]+-[0-9a-z]{8}-[0-9a-z]+\b")
INSTANCE = re.compile(r"\b(stock|orders|accounts|ledger)\.[a-z0-9]{8}\b")


def moved(text: str, ports: dict[str, str]) -> str:
    """The text, with the README's addresses replaced."""
    for shown, real in ports.items():
        text = text.replace(shown, real)
    return text


def run(line: str, folder: Path, env: dict[str, str] | None = None) -> str:
    """Run a line of shell as the README gives it, and return what it printed.

    Raises:
        AssertionError: it failed.
    """
    finished = subprocess.run(
        ["bash", "-c", line.replace(".venv/bin/", f"{PROGRAMS}/")],
        cwd=folder,
        env={**os.environ, **(env or {}), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=COMMAND_S_MAX,
        check=False,
    )
    assert finished.returncode == 0, f"{line}\n{finished.stdout}{finished.stderr}"
    return finished.stdout


def replay(block: Block, ports: dict[str, str], folder: Path, env: dict[str, str] | None = None) -> list[str]:
    """Run a console block's commands, each with the names that the ones before it really gave.

    Returns:
        What each printed, with the README's names again, so that it can be compared with the block.
    """
    real: dict[str, str] = {}
    printed = []
    for command in session(block):
        line = moved(command.line, {**ports, **real})
        output = run(line, folder, env)
        for pattern in (GTRID, INSTANCE):
            shown, found = pattern.finditer(command.output), pattern.finditer(output)
            real |= {one[0]: other[0] for one, other in zip(shown, found, strict=False)}
        printed.append(moved(output, {found: shown for shown, found in real.items()}))
    return printed


async def run_block(block: Block, ports: dict[str, str], names: dict[str, Any]) -> dict[str, Any]:
    """Run a block as `python -m asyncio` would; returns its names."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(moved(block.text, ports), str(block), "exec", flags=flags, dont_inherit=True)
    space = {"__name__": "page", **names}
    result = FunctionType(code, space)()
    if result is not None:
        await result
    return space
