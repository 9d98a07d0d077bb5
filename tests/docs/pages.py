"""The documentation's pages, read as data: links, headings, blocks of code, and console sessions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.architecture.source_tree import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
README = REPOSITORY / "README.md"

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command in a console session, and what it printed."""

    line: str
    output: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """The page's blocks of code in these languages; of all when none is named."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, found["language"], found["text"], text[: found.start()].count("\n") + 1)
        for found in _FENCE.finditer(text)
        if not languages or found["language"] in languages
    ]


def block_with(page: Path, words: str, *languages: str) -> Block:
    """The only block that contains the words."""
    (found,) = [block for block in blocks(page, *languages) if words in block.text]
    return found


def session(block: Block) -> list[Command]:
    """The commands of a console block, each with the output below it."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert parts[0] == "", f"{block} begins with a command"
    return [Command(*part.partition("\n")[::2]) for part in parts[1:]]


def links(page: Path) -> list[str]:
    """The targets of the page's links, except those in code."""
    return [found["target"] for found in _LINK.finditer(_without_code(page))]


def anchors(page: Path) -> set[str]:
    """What the page's headings are called in a link."""
    headings = _HEADING.findall(_without_code(page))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _without_code(page: Path) -> str:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace("](", "] ("), text)
