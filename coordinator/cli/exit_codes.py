"""What the command's exit code tells a script; `handfast --help` and docs/cli.md say the same."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handfast.catalog import HandfastFault
    from handfast.frames import CallFailed


class Exit(IntEnum):
    """An exit code."""

    OK = 0
    FINDING = 1
    USAGE = 2
    UNREACHABLE = 3


MEANINGS = {
    Exit.OK: "done, and all is well",
    Exit.FINDING: "a finding (doctor FAIL, an audit that is not ATOMIC, a log that is not as written), or a refusal",
    Exit.USAGE: "the command line or a setting is wrong",
    Exit.UNREACHABLE: "the coordinator can't be reached, or did not answer in time",
}

EPILOGUE = "Exit codes:\n\n" + "\n".join(f"- {code.value}: {meaning}" for code, meaning in MEANINGS.items())

_UNREACHABLE = {"COORDINATOR_UNREACHABLE", "COORDINATOR_SILENT", "COORDINATOR_MISSING"}
_USAGE = {"SETTING_INVALID", "OPTIONS_UNFIT", "CODE_UNKNOWN"}


def exit_code(problem: HandfastFault | CallFailed) -> Exit:
    """The exit code for what went wrong."""
    if problem.code in _UNREACHABLE:
        return Exit.UNREACHABLE
    return Exit.USAGE if problem.code in _USAGE else Exit.FINDING
