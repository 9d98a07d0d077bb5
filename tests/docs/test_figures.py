"""The figures that README and docs/performance.md quote are those of benchmarks/results.json."""

import json
import shutil
from pathlib import Path

import pytest

from tools import generate_figures


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pages and the results, to be changed."""
    for name in (*generate_figures.PAGES, "benchmarks/results.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(generate_figures.ROOT / name, tmp_path / name)
    monkeypatch.setattr(generate_figures, "ROOT", tmp_path)
    monkeypatch.setattr(generate_figures, "RESULTS", tmp_path / "benchmarks/results.json")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["generate_figures.py", *arguments])
    return generate_figures.main()


def test_the_pages_quote_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "--check") == 0


def test_other_results_are_noticed_and_put_in(
    copies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = json.loads((copies / "benchmarks/results.json").read_text())
    results["figures"]["oneshot_ratio"] |= {"value": 7.25, "reached": True}
    results["figures"]["open_log_s"] |= {"value": -0.0002, "reached": True}  # noise; nothing is opened before its time
    (copies / "benchmarks/results.json").write_text(json.dumps(results))
    assert run(monkeypatch, "--check") == 1
    assert "README.md has not the figures of results.json" in capsys.readouterr().out
    assert run(monkeypatch) == 0
    assert run(monkeypatch, "--check") == 0
    assert "| 7.25 | ≥ 0.75 | reached |" in (copies / "README.md").read_text()
    assert "| 0.000 s more | ≤ 2 | reached |" in (copies / "README.md").read_text()
    assert "| `oneshot_ratio` | 7.25 |" in (copies / "docs/performance.md").read_text()


def test_a_page_without_a_place_for_them_is_an_error(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copies / "README.md").write_text("# Handfast\n")
    with pytest.raises(SystemExit, match=r"README.md has no line <!-- figures"):
        run(monkeypatch)


def test_every_figure_with_an_aim_is_told_in_the_readme() -> None:
    results = json.loads(generate_figures.RESULTS.read_text())
    aimed = {key for key, figure in results["figures"].items() if figure["reach"] is not None}
    assert aimed == set(generate_figures.WORDS)
