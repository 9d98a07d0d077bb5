"""`handfast log`: looking into a decision log's file, without a coordinator or beside one."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from coordinator.cli.about import Json
from coordinator.cli.exit_codes import EPILOGUE, Exit
from coordinator.cli.log_report import report, report_document
from coordinator.cli.output import console, print_json
from handfast.catalog import HandfastFault

log = App(name="log", help="Look into a decision log's file, closed or in use.", help_epilogue=EPILOGUE)

Log = Annotated[Path, Parameter(help="File of the decision log.", env_var="HANDFAST_LOG")]
DEFAULT_LOG = Path("handfast.db")


@log.command(name="verify")
def verify_command(
    *,
    log: Log = DEFAULT_LOG,
    head: Annotated[
        str,
        Parameter(
            help="A head of this log that was noted earlier, as this command prints it; the log must continue it.",
            show_default=False,
        ),
    ] = "",
    json: Json = False,
) -> int:
    """Check that every record is what was written, and that none is missing: checksums, hash chain, SQLite's structure.

    Nothing is changed. The log may be in use; what was durable when it began is checked. The exit code is 1 when
    something is wrong, and each thing that is wrong is named with what to do about it.
    """
    from coordinator.log.verifying import NotedHead, verify_log

    try:
        noted = NotedHead.parse(head) if head else None
    except ValueError as error:
        raise HandfastFault("OPTIONS_UNFIT", problem=f"--head {error}") from None
    found = verify_log(log, noted)
    if json:
        print_json(report_document(log, found))
    else:
        console().print(report(log, found), soft_wrap=True)
    return Exit.FINDING if found.findings else Exit.OK


@log.command(name="export")
def export_command(*, log: Log = DEFAULT_LOG) -> int:
    """Write every record as a line of JSON on standard output, in the order in which they were written.

    The log may be in use. Secrets are masked. The exit code is 1 when a record is not what was written; its line says
    so under "problem".
    """
    from coordinator.log.exporting import export_log

    def write(document: dict[str, Any]) -> None:
        sys.stdout.write(json_module.dumps(document, ensure_ascii=False) + "\n")

    return Exit.FINDING if export_log(log, write) else Exit.OK
