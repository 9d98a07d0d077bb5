"""`handfast serve`: the settings' flags, made from the settings themselves; logging; and the server."""

from __future__ import annotations

from dataclasses import asdict, field, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

from cyclopts import Parameter
from pydantic.fields import FieldInfo

from coordinator.cli.log_lines import configure_logging
from coordinator.config import ENV_PREFIX, CoordinatorConfig

ONCE_PER_VALUE = {"participants": "participant", "admins": "admin", "frame_via": "frame_via"}
"""A setting that holds several values has a flag for one, to be repeated."""


METAVARS = {
    **dict.fromkeys(("config", "log", "tls_cert", "tls_key", "tls_client_ca"), "FILE"),
    **dict.fromkeys(("participant_ca", "participant_cert", "participant_key"), "FILE"),
    **dict.fromkeys(("tokens_file", "audit_trail", "trace"), "FILE"),
    **dict.fromkeys(("participant_name", "admins"), "NAME"),
    **dict.fromkeys(("log_level", "log_format"), "WORD"),
    **dict.fromkeys(("address", "frame_address"), "HOST:PORT"),
    "frame_via": "HOST:PORT=HOST:PORT",
    "participants": "NAME=HOST:PORT",
    "coordinator_id": "ID",
    **dict.fromkeys(("payload_bytes_max", "frame_bytes_max"), "BYTES"),
    "_s": "SECONDS",
    "_h": "HOURS",
    "_max": "COUNT",
}
"""What a flag's value is, by setting or by the end of its name."""


def flag_name(setting: str) -> str:
    """The flag that gives the setting."""
    return "--" + ONCE_PER_VALUE.get(setting, setting).replace("_", "-")


def _flag(setting: str, info: FieldInfo) -> tuple[str, Any, Any]:
    """A dataclass field for the flag. Its value stays text: the setting's own checks read it, whatever its source."""
    kind: Any = str
    if setting in ONCE_PER_VALUE:
        kind = list[str]
    elif info.annotation is bool or get_origin(info.annotation) is Literal:
        kind = info.annotation
    parameter = Parameter(
        name=flag_name(setting),
        help=f"{info.description}. {_origin(setting, info)}",
        metavar=METAVARS.get(setting, METAVARS.get("_" + setting.rsplit("_", 1)[-1])),
        negative="",
        show_default=False,
    )
    return setting, Annotated[kind | None, parameter], field(default=None)


def _origin(setting: str, info: FieldInfo) -> str:
    """The variable that gives the setting too, and the default where there is one worth naming."""
    env = f"[env var: {ENV_PREFIX}{setting.upper()}]"
    default = info.get_default(call_default_factory=True)
    if default is None or default is False or default in ({}, ()):
        return env
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{env} [default: {shown}]"


if TYPE_CHECKING:
    Flags = Any
else:
    Flags = make_dataclass(
        "Flags",
        [_flag(setting, info) for setting, info in CoordinatorConfig.model_fields.items()],
        frozen=True,
        namespace={"__module__": __name__},  # where cyclopts looks up the annotations
    )


NO_FLAGS = Flags()


async def serve_command(*, flags: Annotated[Flags, Parameter(name="*")] = NO_FLAGS) -> int:
    """Run the coordinator until it is told to stop (Ctrl-C or SIGTERM).

    Each setting is taken from the first of these that names it: its flag, its environment variable, the TOML file, the
    default. When it is ready it prints one line. Told to stop, it refuses new work, finishes what is decided, and
    leaves; told twice, it leaves at once.
    """
    from coordinator.rpc.server import serve  # the reports must not wait for the server's libraries to load

    config = CoordinatorConfig(**{name: value for name, value in asdict(flags).items() if value is not None})
    configure_logging(config.log_level, config.log_format)
    return await serve(config)
