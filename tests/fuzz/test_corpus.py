"""Every seed, and every input that once broke something, tried again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz import config_checks, frame_checks, frame_port_checks, log_checks, name_checks
from tests.fuzz.guided import CORPUS

CHECKS: dict[str, Callable[[bytes], None]] = {
    "config": config_checks.check,
    "frame_port": frame_port_checks.check,
    "frames": frame_checks.check,
    "log": log_checks.check,
    "names": name_checks.check,
}
SEEDS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("seed", SEEDS, ids=[f"{path.parent.name}/{path.name}" for path in SEEDS])
def test_a_seed_breaks_nothing(seed: Path) -> None:
    CHECKS[seed.parent.name](seed.read_bytes())
    assert seed.stat().st_size <= 64 * 1024, "the corpus is to stay small"


def test_every_target_has_seeds_and_every_folder_a_target() -> None:
    assert {path.parent.name for path in SEEDS} == set(CHECKS)
    targets = {path.stem.removeprefix("atheris_") for path in CORPUS.parent.glob("atheris_*.py")}
    assert targets == set(CHECKS)
