"""Write docs/errors.md from the error catalog, or check that the committed page is current.

    python tools/generate_error_docs.py            write the page
    python tools/generate_error_docs.py --check    compare, and write nothing

The catalog is the only place where an error's words are changed; the page follows it.
"""

import argparse
import re
import sys
from pathlib import Path

from coordinator.cli.show_entry import KINDS, template_words
from handfast.catalog import ENTRIES, Entry

NAME = re.compile("\0(.*?)\0")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"

HEADER = """\
# Errors

Every way in which Handfast says no, with what to do about it. `handfast explain CODE` prints an entry in a terminal.

A program matches on the code, which is stable; the words may change. A unary call carries the whole entry as a
`handfast.v1.Error` in its status details, a batched call in its reply. *Slanted* words stand for what the message
names, as `<words>` in a command do.

This page is generated from `handfast/catalog*.py`: `python tools/generate_error_docs.py`.
"""


def main() -> int:
    """Write or check the page; the exit status is 1 when a check finds a difference."""
    parser = argparse.ArgumentParser(description="Write docs/errors.md from the error catalog.")
    parser.add_argument("--check", action="store_true", help="compare with the committed page and write nothing")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    print(
        f"docs/{PAGE.name} is not what the catalog gives; mend it with: python tools/generate_error_docs.py",
        file=sys.stderr,
    )
    return 1


def page() -> str:
    """The page as the catalog gives it."""
    sections = [HEADER]
    for kind, title in KINDS.items():
        entries = [entry for entry in ENTRIES.values() if entry.kind == kind]
        sections.append(f"## {title.split(':')[0].rstrip('.')}\n")
        if ":" in title:
            sections.append(f"{_capitalized(title.split(':', 1)[1].strip())}\n")
        sections += [_section(entry) for entry in entries]
    return "\n".join(sections)


def _section(entry: Entry) -> str:
    return (
        f"### {entry.code}\n\n"
        f"{_words(entry.message)}\n\n"
        f"**What to do:** {_words(entry.mend)}\n\n"
        f"gRPC status: `{entry.grpc_status}`\n"
    )


def _words(template: str) -> str:
    """The template with its names slanted; inside a code span, where nothing can be slanted, in angle brackets."""
    spans = template_words(template, "\0{}\0".format).split("`")
    marks = (r"*\1*", r"<\1>")
    return "`".join(NAME.sub(marks[position % 2], span) for position, span in enumerate(spans))


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    sys.exit(main())
