"""`demo` and `chaos`: programs around the coordinator, imported only when they run."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from coordinator.cli.admin import JSON_HELP, Switch
from coordinator.cli.exit_codes import Exit
from handfast.catalog import HandfastFault

CHECKOUT = "Run it from a checkout of Handfast, after `make install`."
INSTALL = "Run `make install` in a checkout of Handfast: it brings everything, and no package index has it."

chaos = App(
    name="chaos",
    help="Run fault scenarios against real processes; `handfast chaos --help` lists its commands.",
    help_flags=[],
    version_flags=[],
)


def demo_command(
    *,
    transfers: Annotated[int, Parameter(help="How many transfers to run.")] = 1000,
    keep: Annotated[bool, Switch(help="Keep the databases and logs for a look afterwards.")] = False,
    json: Annotated[bool, Switch(help=JSON_HELP)] = False,
) -> int:
    """Run two databases and a bank, kill processes at the worst moment, and audit what is left.

    Needs nothing installed but Handfast with its demo part: the Postgres servers come with it.
    """
    return int(load("demo", "chaos.demo").run_demo(json=json, keep=keep, transfers=transfers))


@chaos.default
def chaos_command(*tokens: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]) -> int:
    """Hand everything after `chaos` to the lab's own commands."""
    lab = load("chaos", "chaos.cli").app
    try:
        return int(lab(list(tokens), exit_on_error=False, result_action="return_value") or Exit.OK)
    except CycloptsError:
        return Exit.USAGE


def load(command: str, module: str) -> Any:
    """Import what the command runs.

    Raises:
        HandfastFault: PART_MISSING, with the module that is not here and how to get it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        name = missing.name or module
        ours = name.split(".")[0] in {"chaos", "examples"}
        remedy = CHECKOUT if ours else INSTALL
        raise HandfastFault("PART_MISSING", command=command, module=name, remedy=remedy) from missing
