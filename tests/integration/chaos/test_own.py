"""The lab on services that are not the bank: the shop of the README, with its own databases and its own invariant."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.own import run_own
from chaos.own_plan import PlanInvalid, read_plan
from chaos.stack import PostgresCluster, Stack, free_port

PLAN = Path(__file__).resolve().parents[3] / "examples" / "shop" / "chaos.toml"


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Path]:
    """The example's plan, on ports of this test's own; the databases run."""
    with Stack() as stack:
        ports: dict[str, int] = {}
        for name, port in (("stock", "5501"), ("orders", "5502")):
            cluster = stack.start(PostgresCluster(name, stack.path))
            cluster.create_database(name)
            ports[port] = cluster.port
        ports |= {listening: free_port() for listening in ("7400", "7401", "17400", "17401", "7501", "7502")}
        text = re.sub(rf"\b({'|'.join(ports)})\b", lambda found: str(ports[found[0]]), PLAN.read_text())
        text = text.replace("[load]\n", f'[load]\nenv = {{ HANDFAST_ADDRESS = "127.0.0.1:{ports["7400"]}" }}\n')
        text = text.replace(
            'ready = "stock is ready"',
            f'ready = "stock is ready"\nenv = {{ HANDFAST_ADDRESS = "127.0.0.1:{ports["7400"]}" }}',
        )
        path = tmp_path / "chaos.toml"
        path.write_text(text)
        yield path


def test_the_shop_keeps_its_invariant_through_a_death_and_a_cut(plan: Path) -> None:
    said: list[str] = []
    result = run_own(plan, lambda event: said.append(event.what))
    assert [finding.observed for finding in result.findings if not finding.holds] == []
    assert result.passed
    assert result.findings[-1].observed == "3 before, 3 after"
    assert result.calls.total() > 3
    assert said == [
        "orders dead",
        "orders dead: healed after 2 s",
        "cut orders → coordinator",
        "cut orders → coordinator: healed after 2 s",
    ]


def test_the_example_has_frames_go_through_its_proxies_too() -> None:
    plan = read_plan(PLAN, {"FOLDER": "/nowhere"})
    (coordinator,) = (part for part in plan.process if part.name == "coordinator")
    (link,) = plan.link
    assert link.frames is not None
    told = ["--frame-address", link.frames.upstream, "--frame-via", f"{link.listen}={link.frames.listen}"]
    assert coordinator.command[-4:] == told


def test_an_invariant_that_breaks_is_told_with_both_sums(plan: Path) -> None:
    text = plan.read_text().replace("SELECT count(*) FROM orders", "SELECT 2 * count(*) FROM orders")
    calm = text.partition("[[fault]]")[0].replace("seconds = 10", "seconds = 1")
    plan.write_text(calm + text[text.index("[[invariant]]") :])
    result = run_own(plan, lambda event: None)
    broken = [finding for finding in result.findings if not finding.holds]
    assert [(finding.expected, finding.observed[:8]) for finding in broken] == [
        ("every lamp is in the stock or in an order", "3 before")
    ]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ('kind = "explode"', "there is no fault 'explode'"),
        ('kind = "kill"\ncolour = "red"', "fault 'kill': .*colour"),
        ('kind = "kill"\nat_s = -1', "Cannot overwrite|at_s"),
    ],
)
def test_a_wrong_plan_is_refused_with_its_place(tmp_path: Path, wrong: str, words: str) -> None:
    path = tmp_path / "chaos.toml"
    path.write_text(PLAN.read_text().replace('kind = "kill"', wrong))
    with pytest.raises(PlanInvalid, match=words):
        read_plan(path, {"FOLDER": "/nowhere"})
