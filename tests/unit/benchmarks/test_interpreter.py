"""Which interpreter makes the environment: one that was built with optimizations, where there is one."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import interpreter
from benchmarks.interpreter import is_optimized, version_if_fit


def program(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def named(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What is printed: the command, and what is said beside it."""
    interpreter.main()
    printed = capsys.readouterr()
    return printed.out.strip(), printed.err


@pytest.mark.parametrize(
    ("config_args", "prefix", "optimized"),
    [
        ("'--prefix=/usr/local' '--enable-optimizations' '--with-lto'", "/usr/local", True),
        ("'--prefix=/home/me/.pyenv/versions/3.11.7' '--enable-shared'", "/home/me/.pyenv/versions/3.11.7", False),
        ("'--enable-shared' '--prefix=/usr'", "/usr", True),
        ("", "/opt/python", False),
    ],
)
def test_the_flag_says_it_and_the_system_need_not(config_args: str, prefix: str, optimized: bool) -> None:
    assert is_optimized(config_args, prefix) is optimized


def test_an_optimized_python3_is_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(interpreter, "this_is_optimized", lambda: True)
    monkeypatch.setattr(interpreter, "SYSTEM_PYTHON", sys.executable)
    assert named(capsys) == ("python3", "")


def test_the_system_python_is_taken_where_python3_is_not_optimized_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interpreter, "this_is_optimized", lambda: False)
    monkeypatch.setattr(interpreter, "SYSTEM_PYTHON", sys.executable)
    command, said = named(capsys)
    assert command == sys.executable
    assert "built without optimizations" in said
    assert "make install PYTHON=python3" in said


@pytest.mark.parametrize("text", ["#!/bin/sh\necho 3.9.2; exit 1\n", "no program\n", None])
def test_python3_is_taken_where_the_system_has_none_that_will_do(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    system = tmp_path / "python3"
    monkeypatch.setattr(interpreter, "this_is_optimized", lambda: False)
    monkeypatch.setattr(interpreter, "SYSTEM_PYTHON", program(system, text) if text is not None else str(system))
    assert named(capsys) == ("python3", "")


def test_a_fit_interpreter_tells_its_version() -> None:
    assert version_if_fit(sys.executable) == sys.version.split()[0]


def test_the_makefile_can_run_it_as_a_file_before_anything_is_installed() -> None:
    ran = subprocess.run(
        [sys.executable, "-I", "-S", interpreter.__file__], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.strip() in ("python3", interpreter.SYSTEM_PYTHON)
