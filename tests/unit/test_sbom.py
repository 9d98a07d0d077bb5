"""The software bill of materials names what the lock names, all of it, and nothing else."""

import json
import re

import pytest

from tests.architecture.source_tree import REPOSITORY
from tools.generate_sbom import LockUnreadable, read_lock, written

LOCK = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
BILL = json.loads(written())


def test_every_locked_package_is_named_with_its_version_and_the_hashes_of_its_files() -> None:
    """Read from the lock a second way: by its lines alone."""
    pinned: dict[tuple[str, str], set[str]] = {}
    hashes: set[str] = set()
    for line in LOCK.splitlines():
        if found := re.match(r"([\w.-]+)(?:\[.*?\])?==([^\s;]+)", line):
            hashes = pinned.setdefault((found[1], found[2]), set())
        elif found := re.search(r"--hash=sha256:(\w{64})", line):
            hashes.add(found[1])
    named = {(one["name"], one["version"]): {shown["content"] for shown in one["hashes"]} for one in BILL["components"]}
    assert named == pinned
    assert all(pinned.values())


def test_each_package_is_needed_by_somebody() -> None:
    known = {one["bom-ref"] for one in BILL["components"]}
    needed = {ref for one in BILL["dependencies"] for ref in one["dependsOn"]}
    root = BILL["metadata"]["component"]["bom-ref"]
    assert needed <= known
    assert {one["ref"] for one in BILL["dependencies"]} == known | {root}
    by_name = {one["bom-ref"]: one for one in BILL["components"]}
    assert all(by_name[ref]["scope"] == "excluded" for ref in known - needed), "the tools of those who work on it"


def test_what_runs_and_what_only_tests_are_told_apart() -> None:
    scopes = {one["name"]: one["scope"] for one in BILL["components"]}
    assert {scopes[name] for name in ("grpcio", "psycopg", "typing-extensions")} == {"required"}
    assert {scopes[name] for name in ("pytest", "hypothesis", "mypy")} == {"excluded"}


def test_the_same_lock_gives_the_same_bill() -> None:
    assert written() == written()


@pytest.mark.parametrize("line", ["grpcio>=1.80", "-e .", "grpcio==1.80"], ids=["not pinned", "a path", "no hash"])
def test_a_lock_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(LockUnreadable):
        read_lock(line)
