"""docs/security.md names every limit, with the default that it has."""

import re

import pytest

from coordinator.config import CoordinatorConfig
from tests.architecture.source_tree import REPOSITORY

PAGE = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([a-z_]+)` \| ([\d.,]+)( MiB)?", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("setting", "shown", "unit"), ROWS, ids=[row[0] for row in ROWS])
def test_the_default_in_the_table_is_the_setting_s_own(setting: str, shown: str, unit: str) -> None:
    default = CoordinatorConfig.model_fields[setting].default
    number = float(shown.strip(",").replace(",", ""))
    assert number * (2**20 if unit else 1) == float(default)


def test_every_limit_of_the_settings_stands_in_the_table() -> None:
    limits = {name for name in CoordinatorConfig.model_fields if name.endswith("_max")}
    told = {row[0] for row in ROWS}
    # How much is kept for reports is no limit on anybody.
    assert limits - told == {"finished_kept_max"}
    assert {"keepalive_s", "connection_age_max_s"} <= told


def test_the_table_is_not_read_in_vain() -> None:
    assert len(ROWS) >= 15
