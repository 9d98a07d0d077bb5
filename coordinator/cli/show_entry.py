"""An entry of the error catalog as a person reads it; `handfast explain` and docs/errors.md are made of it."""

from __future__ import annotations

from collections.abc import Callable
from string import Formatter
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from coordinator.cli.show_status import facts, table
from handfast.catalog import ENTRIES, Entry

KINDS = {
    "call": "An RPC's error: the gRPC status and the words come with the answer.",
    "vote": "Why a branch voted NO: the `reason_code` inside TransactionAborted.",
    "start": "Why the coordinator refused to start.",
    "command": "What the command `handfast` itself says.",
}


def template_words(template: str, placeholder: Callable[[str], str] = "<{}>".format) -> str:
    """A message's template with a mark in each place that a name will take.

    Args:
        template: a ``str.format`` template.
        placeholder: makes the mark from the field's name.
    """
    parts = Formatter().parse(template)
    return "".join(text + (placeholder(field) if field is not None else "") for text, field, _, _ in parts)


def entry_document(entry: Entry) -> dict[str, Any]:
    """The entry as JSON."""
    return {
        "code": entry.code,
        "kind": entry.kind,
        "grpc_status": entry.grpc_status,
        "message": template_words(entry.message),
        "mend": template_words(entry.mend),
    }


def show_entry(entry: Entry) -> RenderableType:
    """One entry in full."""
    return Group(
        Text(entry.code, "bold red"),
        facts(
            ("what happened", template_words(entry.message)),
            ("what to do", template_words(entry.mend)),
            ("where", KINDS[entry.kind]),
            ("gRPC status", entry.grpc_status),
        ),
    )


def show_entries() -> RenderableType:
    """Every entry on a line."""
    listed = table("code", "shows as", "what happened", whole=("code",))
    for entry in ENTRIES.values():
        listed.add_row(Text(entry.code, "bold"), entry.kind, template_words(entry.message))
    return listed
