"""The repository's own Python modules, parsed, for the tests that read code instead of running it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = ("handfast", "coordinator", "participant", "chaos", "benchmarks", "examples")
FOLDERS = (*SHIPPED, "tests", "tools")


@dataclass(frozen=True)
class Module:
    """One source file; `path` is relative to the repository."""

    path: PurePath
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """The name it is imported by: coordinator/log/__init__.py is coordinator.log."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def at(self, node: ast.stmt | ast.expr) -> str:
        """Where a finding is, as an editor opens it."""
        return f"{self.path}:{node.lineno}"


def read_modules(root: Path, folders: tuple[str, ...] = FOLDERS) -> list[Module]:
    """Parse every module below the folders that exist, generated stubs excepted."""
    return [
        Module(path.relative_to(root), text := path.read_text(encoding="utf-8"), ast.parse(text, str(path)))
        for folder in folders
        for path in sorted((root / folder).rglob("*.py"))
        if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
    ]


def imports(module: Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Each import statement, wherever it stands, with each name that it may load a module by.

    `from coordinator import log` may load coordinator and coordinator.log; both are given.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            yield node, base
            for alias in node.names:
                yield node, f"{base}.{alias.name}"


def _base(module: Module, node: ast.ImportFrom) -> str:
    """The absolute name after `from`."""
    if node.level == 0:
        return node.module or ""
    package = module.name.split(".")
    if module.path.name != "__init__.py":
        package.pop()
    kept = package[: len(package) - node.level + 1]
    return ".".join([*kept, node.module] if node.module else kept)
