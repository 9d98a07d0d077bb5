"""`version` and `explain`: what the command can tell without a coordinator."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Annotated

from cyclopts import Parameter

from coordinator.cli.admin import JSON_HELP, Switch
from coordinator.cli.exit_codes import Exit
from coordinator.cli.output import console, print_json
from coordinator.cli.show_entry import entry_document, show_entries, show_entry
from handfast.catalog import ENTRIES, HandfastFault

Json = Annotated[bool, Switch(help=JSON_HELP)]


def handfast_version() -> str:
    """The installed version."""
    return version("handfast")


def version_command(*, json: Json = False) -> int:
    """Print the version of Handfast, and of what it runs on."""
    found = {"handfast": handfast_version(), "python": platform.python_version(), "grpcio": version("grpcio")}
    if json:
        print_json(found)
    else:
        console().print("handfast {handfast} (Python {python}, grpcio {grpcio})".format(**found))
    return Exit.OK


def explain_command(
    code: Annotated[
        str, Parameter(help="The error's code; without one, all of them are listed.", show_default=False)
    ] = "",
    /,
    *,
    json: Json = False,
) -> int:
    """Explain an error by its code: what happened, and what to do."""
    if not code:
        if json:
            print_json({"entries": [entry_document(entry) for entry in ENTRIES.values()]})
        else:
            console().print(show_entries())
        return Exit.OK
    entry = ENTRIES.get(code.upper().replace("-", "_"))
    if entry is None:
        raise HandfastFault("CODE_UNKNOWN", text=code)
    if json:
        print_json(entry_document(entry))
    else:
        console().print(show_entry(entry))
    return Exit.OK
