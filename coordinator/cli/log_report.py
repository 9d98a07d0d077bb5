"""What `handfast log verify` found, for a person and as a document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from coordinator.log.verifying import Verification
from handfast.masking import masked

_NOTED = {
    "holds": "The head that was noted earlier is in this chain.",
    "differs": "The head that was noted earlier is NOT in this chain.",
    "dropped": "Retention has dropped the record of the head that was noted earlier: it can't be compared any more.",
}


def report_document(path: Path, found: Verification) -> dict[str, Any]:
    """The findings as JSON."""
    head = None if found.head is None else {"seq": found.head.seq, "hash": found.head.hash.hex()}
    return {
        "path": str(path),
        "coordinator_id": found.coordinator_id or None,
        "epoch": found.epoch or None,
        "records": {kind: number for kind, number in sorted(found.records.items()) if number},
        "dropped": found.dropped,
        "adopted_seq": None if found.head is None else found.head.adopted_seq,
        "head": head,
        "noted": found.noted or None,
        "findings": [
            {
                "wrong": finding.wrong.value,
                "record": finding.kind or None,
                "seq": finding.seq,
                "gtrid": finding.gtrid or None,
                "problem": masked(finding.problem),
                "mend": mend,
            }
            for finding, mend in found.findings
        ],
        "findings_left_out": found.left_out,
    }


def report(path: Path, found: Verification) -> RenderableType:
    """The findings for a person."""
    count = found.records.total()
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(found.records.items()) if number)
    lines = [Text(f"{path}: coordinator {found.coordinator_id or '?'}, epoch {found.epoch or '?'}, {count} records")]
    if kinds:
        lines.append(Text(f"  {kinds}; {found.dropped} dropped by retention"))
    for finding, mend in found.findings:
        lines.append(Text.assemble((f"\n{finding.wrong.upper()}  ", "bold red"), masked(finding.problem) + "."))
        lines.append(Text(f"  {mend}"))
    if found.left_out:
        lines.append(Text(f"\nAnd {found.left_out} more."))
    if found.noted:
        lines.append(Text("\n" + _NOTED[found.noted]))
    return Group(*lines, *_closing(found))


def _closing(found: Verification) -> list[Text]:
    if found.findings or found.head is None:
        return [Text("\nThe log is NOT what was written to it.", "bold red")]
    lines = [Text("\nEvery record is what was written, and none is missing.", "bold green")]
    if found.head.adopted_seq:
        adopted = f"Records 1 to {found.head.adopted_seq} are from before the log kept a chain"
        lines.append(Text(f"({adopted}, which vouches for them since.)"))
    lines.append(Text(f"The head is {found.head.seq}:{found.head.hash.hex()}"))
    return [
        *lines,
        Text("Noted elsewhere, it lets `handfast log verify --head` tell later whether this log was rewritten."),
    ]
