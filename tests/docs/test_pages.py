"""What the pages say of the repository is so: links lead somewhere, commands, options, targets and names exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

import handfast
import participant
from coordinator.cli.app import make_app
from tests.architecture.source_tree import REPOSITORY
from tests.docs.pages import PAGES, README, Block, anchors, blocks, links

APP = make_app()
README_LINES_MAX = 350
BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]

_INLINE = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?handfast (?P<words>[^|#&\n]*)")
_MAKE = re.compile(r"^(?:\$ )?make (?P<target>[a-z-]+)")


def spelled(page: Path) -> Iterator[str]:
    """Every line of a shell block, and everything that is set in code type."""
    shown = [*blocks(page, "sh", "console")]
    for block in shown:
        yield from block.text.splitlines()
    text = page.read_text(encoding="utf-8")
    for block in blocks(page):
        text = text.replace(block.text, "")
    yield from _INLINE.findall(text)


def command_of(words: list[str]) -> tuple[App | None, list[str]]:
    """The command that the words name, and the words after it; None when there is none."""
    found, rest = APP, words
    while rest and re.fullmatch(r"[a-z]+", rest[0]) and rest[0] in [*found]:
        found, rest = found[rest[0]], rest[1:]
    return (None if found is APP else found), rest


def options(command: App) -> set[str]:
    return {name for argument in command.assemble_argument_collection() for name in argument.names} | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = []
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_named_exists_with_its_options(page: Path) -> None:
    wrong = []
    for line in spelled(page):
        found = _COMMAND.match(line)
        if found is None or found["words"].startswith(("COMMAND", "<command>", "--", "…", "is ready")):
            continue
        command, rest = command_of(found["words"].split())
        if command is None:
            wrong.append(line)
        elif found["words"].split()[0] != "chaos":  # what follows belongs to the lab
            named = {word.partition("=")[0] for word in rest if word.startswith("--")}
            wrong += [f"{line}: {option}" for option in named - options(command)]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_make_target_named_exists(page: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {found["target"] for line in spelled(page) if (found := _MAKE.match(line))}
    assert named - targets == set()


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_shown_is_python_and_uses_names_that_are_public(block: Block) -> None:
    tree = compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    public = {"handfast": set(handfast.__all__), "participant": set(participant.__all__)}
    unknown = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in public:
            unknown |= {alias.name for alias in node.names} - public[node.module]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "handfast":
            unknown |= {node.attr} - public["handfast"] - {"v1"}
    assert unknown == set()


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= README_LINES_MAX


def test_the_index_names_every_page() -> None:
    index = REPOSITORY / "docs" / "README.md"
    named = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    assert {page for page in PAGES if page.parent == index.parent} - {index} - named == set()


def test_a_dead_link_and_a_missing_heading_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Two words\n[a](page.md#two-words) [b](gone.md) `[c](code.md)`\n")
    assert links(page) == ["page.md#two-words", "gone.md"]
    assert anchors(page) == {"two-words"}
