"""What `handfast chaos own FILE` reads: processes, links, a load, a schedule of faults, and what must not change.

Everything is named by the user; nothing here knows the bank. ``$NAME`` in commands, environments and addresses is
replaced from the environment, ``$FOLDER`` by a folder that is gone after the run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chaos import faults
from chaos.faults import Fault


class PlanInvalid(ValueError):
    """The file does not say what it should; tells where."""


class Part(BaseModel):
    """A table of the file. A name that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProcessPart(Part):
    """A process that the lab starts, and can therefore kill, pause and restart."""

    name: str
    command: list[str] = Field(min_length=1)
    env: dict[str, str] = {}
    ready: str = Field(description="a text in its output that says so")


class ProxyPart(Part):
    """A proxy: what is said to ``listen`` goes to ``upstream``."""

    listen: str
    upstream: str


class LinkPart(ProxyPart):
    """A link: the source is told to use ``listen``. Frame connections need a proxy of their own: the target is told by
    ``frame_via`` that who uses ``listen`` finds its frame port at ``frames.listen``."""

    source: str
    target: str
    frames: ProxyPart | None = None


class LoadPart(Part):
    """A command that makes one transaction, run again and again; ``{number}`` in it grows."""

    command: list[str] = Field(min_length=1)
    env: dict[str, str] = {}
    seconds: float = Field(gt=0)
    pause_s: float = Field(0.1, ge=0)


class FaultPart(BaseModel):
    """A fault: when, for how long, and what; the rest depends on its kind."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    at_s: float = Field(ge=0)
    for_s: float = Field(gt=0)

    def fault(self) -> Fault:
        """Make it.

        Raises:
            PlanInvalid: there is no such kind, or its settings are wrong.
        """
        make = _KINDS.get(self.kind)
        if make is None:
            raise PlanInvalid(f"there is no fault {self.kind!r}; there are: {', '.join(_KINDS)}")
        try:
            return make(**(self.model_extra or {}))
        except TypeError as error:
            raise PlanInvalid(f"fault {self.kind!r}: {error}") from error


class QueryPart(Part):
    """A question to one database; its answer is one number."""

    dsn: str
    sql: str


class InvariantPart(Part):
    """The sum of some answers, which must be the same after the run as before."""

    name: str
    queries: list[QueryPart] = Field(min_length=1)


class OwnPlan(Part):
    """The whole file."""

    coordinator: str = Field(description="host:port, past every proxy")
    process: list[ProcessPart] = []
    link: list[LinkPart] = []
    load: LoadPart
    fault: list[FaultPart] = []
    invariant: list[InvariantPart] = Field(min_length=1)


_KINDS: dict[str, Callable[..., Fault]] = {
    "cut": faults.Cut,
    "silence": faults.silence,
    "latency": faults.latency,
    "bandwidth": faults.bandwidth,
    "slicer": faults.slicer,
    "limit_data": faults.limit_data,
    "reset_peer": faults.reset_peer,
    "kill": faults.Kill,
    "pause": faults.Pause,
    "restart": faults.Restart,
}


def read_plan(path: Path, variables: Mapping[str, str]) -> OwnPlan:
    """Read a plan.

    Args:
        path: of the TOML file.
        variables: what ``$NAME`` stands for.

    Raises:
        PlanInvalid: it can't be read, or is not a plan; says where.
    """
    try:
        plan = OwnPlan.model_validate(_replaced(tomllib.loads(path.read_text()), variables))
        for part in plan.fault:
            part.fault()
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise PlanInvalid(f"{path}: {type(error).__name__}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise PlanInvalid(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return plan


def _replaced(tree: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(tree, str):
        return Template(tree).substitute(variables)
    if isinstance(tree, list):
        return [_replaced(one, variables) for one in tree]
    if isinstance(tree, dict):
        return {name: _replaced(one, variables) for name, one in tree.items()}
    return tree
