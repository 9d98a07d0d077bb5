"""A skipped test passes CI without having been run, so CI refuses it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source_tree import REPOSITORY

SKIPS = {
    "a mark": "import pytest\n@pytest.mark.skip(reason='why')\ndef test_it(): pass\n",
    "a call in the test": "import pytest\ndef test_it(): pytest.skip('why')\n",
    "a whole module": "import pytest\npytest.skip('why', allow_module_level=True)\n",
}


@pytest.mark.parametrize("skip", SKIPS.values(), ids=SKIPS.keys())
def test_a_skip_fails_the_run_in_ci_and_says_why(tmp_path: Path, skip: str) -> None:
    finished = run_pytest(tmp_path, skip, ci="true")
    assert finished.returncode != 0
    assert "skipped, which CI does not allow: Skipped: why" in finished.stdout


def test_a_skip_is_allowed_on_a_desk(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, SKIPS["a mark"], ci="")
    assert finished.returncode == 0
    assert "1 skipped" in finished.stdout


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False\n", ci="true")
    assert finished.returncode == 0
    assert "1 xfailed" in finished.stdout


def run_pytest(folder: Path, test: str, *, ci: str) -> subprocess.CompletedProcess[str]:
    """Run one test file under this suite's conftest.py, as a suite of its own."""
    shutil.copy(REPOSITORY / "tests" / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_subject.py").write_text(test)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:hypothesispytest"],
        cwd=folder,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
