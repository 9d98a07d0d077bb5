"""Write a software bill of materials from the lock: CycloneDX, JSON.

    python tools/generate_sbom.py sbom.cdx.json              write it
    python tools/generate_sbom.py --validate sbom.cdx.json   compare it with the format's schema

The lock (requirements.txt) is the whole truth about what may be installed: each package with its version and the hashes
of its files. What depends on what is in its ``via`` comments, and stands in the bill too. Written here rather than by a
tool, because those look at what is installed on one machine, and the lock is for all of them. The same lock gives the
same bill, byte for byte, so there is no time and no random number in it.

Validation needs cyclonedx-python-lib; ``make sbom`` brings it.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
LOCK = REPOSITORY / "requirements.txt"
PROJECT = REPOSITORY / "pyproject.toml"
SPEC_VERSION = "1.6"
DEVELOPMENT = "(development)"

_PINNED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\]+))?")
_HASH = re.compile(r"--hash=sha256:(?P<digest>[0-9a-f]{64})")
_VIA = re.compile(r"#\s+(?:via\s+)?(?P<name>[A-Za-z0-9._-]+)(?P<rest>.*)")


class LockUnreadable(Exception):
    """The lock holds something that is no pinned package; its message says what."""


@dataclass(frozen=True, slots=True)
class Locked:
    """One package of the lock.

    Args:
        name: its name, as the index normalizes it.
        version: its version.
        marker: where it is needed, as an environment marker; empty means everywhere.
        hashes: the SHA-256 of each of its files.
        wanted_by: the packages that need it; the project's own name when it does, ``DEVELOPMENT`` when only who works
            on the project does.
    """

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    wanted_by: tuple[str, ...]

    @property
    def purl(self) -> str:
        """Its package URL, which is its name in the bill, too."""
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(text: str) -> list[Locked]:
    """The packages of a lock.

    Raises:
        LockUnreadable: a line is no pinned package, or a package has no hash.
    """
    return [_locked(entry) for entry in _entries(text)]


def _entries(text: str) -> Iterator[list[str]]:
    """A package's line, with the lines of hashes and comments after it."""
    entry: list[str] = []
    for line in text.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            if entry:
                yield entry
            entry = [line]
        elif entry:
            entry.append(line)
    if entry:
        yield entry


def _locked(entry: list[str]) -> Locked:
    found = _PINNED.match(entry[0])
    if found is None:
        raise LockUnreadable(f"no pinned package: {entry[0]!r}")
    hashes = tuple(sorted(_HASH.findall("\n".join(entry))))
    if not hashes:
        raise LockUnreadable(f"{found['name']} has no hash")
    marker = (found["marker"] or "").strip()
    return Locked(normalized(found["name"]), found["version"], marker, hashes, tuple(sorted(_wanted_by(entry))))


def _wanted_by(entry: list[str]) -> Iterator[str]:
    for line in entry:
        found = _VIA.fullmatch(line.strip())
        if found and found["name"] != "via":
            yield DEVELOPMENT if ":dev)" in found["rest"] else normalized(found["name"])


def normalized(name: str) -> str:
    """A package's name as the index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def bill_of(packages: list[Locked], project: dict[str, Any]) -> dict[str, Any]:
    """The bill, as a JSON document.

    Args:
        packages: what is locked.
        project: the table ``project`` of pyproject.toml.
    """
    name, version = project["name"], project["version"]
    root = f"pkg:pypi/{name}@{version}"
    shipped = _needed_by(name, packages)
    components = [_component(package, shipped=package.name in shipped) for package in packages]
    bill = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": name,
                "version": version,
                "purl": root,
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": components,
        "dependencies": _dependencies(packages, name, root),
    }
    # Named by its content: two bills of one lock are one bill.
    content = json.dumps(bill, sort_keys=True)
    return bill | {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"}


def _needed_by(root: str, packages: list[Locked]) -> set[str]:
    """The names of all that a package needs, directly or not."""
    needed = {root}
    while more := {one.name for one in packages if one.name not in needed and needed.intersection(one.wanted_by)}:
        needed |= more
    return needed


def _component(package: Locked, *, shipped: bool) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "scope": "required" if shipped else "excluded",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in package.hashes],
    }
    if package.marker:
        component["properties"] = [{"name": "python:marker", "value": package.marker}]
    return component


def _dependencies(packages: list[Locked], project: str, root: str) -> list[dict[str, Any]]:
    """Who needs what: the lock's ``via`` comments, turned round."""
    refs: dict[str, list[str]] = {project: [root]}
    for package in packages:
        refs.setdefault(package.name, []).append(package.purl)
    needs: dict[str, set[str]] = {ref: set() for found in refs.values() for ref in found}
    for package in packages:
        for by in package.wanted_by:
            for ref in refs.get(by, ()):
                needs[ref].add(package.purl)
    return [{"ref": ref, "dependsOn": sorted(needed)} for ref, needed in sorted(needs.items())]


def written() -> str:
    """The bill of this repository's lock."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    return json.dumps(bill_of(read_lock(LOCK.read_text(encoding="utf-8")), project), indent=2) + "\n"


def problem_of(bill: str) -> str:
    """What the format's schema objects to; empty when nothing."""
    schema: Any = importlib.import_module("cyclonedx.schema")
    validation: Any = importlib.import_module("cyclonedx.validation.json")
    found = validation.JsonStrictValidator(schema.SchemaVersion.from_version(SPEC_VERSION)).validate_str(bill)
    return "" if found is None else str(found)


def main(arguments: list[str]) -> int:
    """Write, or validate."""
    path = Path(arguments[-1])
    if "--validate" not in arguments:
        path.write_text(written(), encoding="utf-8")
        print(f"{path}: {len(read_lock(LOCK.read_text(encoding='utf-8')))} packages")
        return 0
    problem = problem_of(path.read_text(encoding="utf-8"))
    print(f"{path}: {problem or 'is valid CycloneDX ' + SPEC_VERSION}")
    return 1 if problem else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
