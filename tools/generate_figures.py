"""Put the figures of benchmarks/results.json into the tables of README.md and docs/performance.md, or check them.

    python tools/generate_figures.py            write them
    python tools/generate_figures.py --check    compare them with the results and write nothing

A table stands between two comments, ``<!-- figures: … -->`` and ``<!-- end of figures -->``; what is around them is
written by hand.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
BEGIN = "<!-- figures: tools/generate_figures.py writes them from benchmarks/results.json -->"
END = "<!-- end of figures -->"
Results = Mapping[str, Any]

WORDS = {
    "oneshot_ratio": "`Execute` over two databases, 48 in flight: throughput, against the same SQL by hand",
    "interactive_ratio": "begin, two RPCs, commit, 48 in flight: throughput, against the two RPCs without atomicity",
    "latency_ratio": "`Execute`, one in flight: median time, against by hand",
    "tail_ratio": "99th percentile against median, at half of the full throughput, open loop",
    "recovery_ratio": "branches in doubt resolved a second after a crash, against plain `COMMIT PREPARED`",
    "capacity_ratio": "transactions a second over participants that do nothing, against empty gRPC calls a second",
    "fsyncs_per_transaction": "forces of the log for each of these transactions",
    "branches_scaling": "branches a second with 16 in a transaction, against 2",
    "open_log_s": "start with 1,000,000 finished transactions in the log, against an empty one",
    "memory_kib_per_open": "memory for each open transaction",
    "memory_drift": "memory after 200,000 transactions, against after 20,000",
}
"""What the README says of each figure; those that are missing here are in docs/performance.md only."""

PROCESSES = ("client", "coordinator", "service", "postgres", "all")
CPU_ROWS = {
    "oneshot": "`Execute`, 48 in flight",
    "oneshot baseline": "by hand, 48 in flight",
    "interactive": "interactive, 48 in flight",
    "interactive baseline": "two local RPCs",
    "latency": "`Execute`, 1 in flight",
    "capacity": "no-op participants, 256 in flight, asked for in columns",
    "capacity, call by call": "the same, asked for call by call",
    "capacity by tm.execute": "the same, by the client",
    "capacity unary only": "the same, unary calls only",
    "capacity baseline": "an empty unary call",
}


def main() -> int:
    """Write or check the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a table is not current")
    check = parser.parse_args().check
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    stale = [path for path, table in PAGES.items() if not _refresh(ROOT / path, table(results), check=check)]
    for path in stale:
        print(f"{path} has not the figures of {RESULTS.name}; put them in with: python tools/{Path(__file__).name}")
    return 1 if stale else 0


def short(results: Results) -> Iterator[str]:
    """The README's table."""
    yield from _of(results, "Measured by")
    yield ""
    yield "| | measured | reach | |"
    yield "|---|---|---|---|"
    for key, words in WORDS.items():
        if (figure := results["figures"].get(key)) is not None:
            yield f"| {words} | {_number(figure['value'])}{_unit(figure)} | {_reach(figure)} | {_verdict(figure)} |"


def whole(results: Results) -> Iterator[str]:
    """The table of docs/performance.md, and where the CPU goes."""
    yield from _of(results, "By")
    yield ""
    yield "| figure | median | min … max | reach | |"
    yield "|---|---|---|---|---|"
    for key, figure in results["figures"].items():
        spread = f"{_number(figure['min'])} … {_number(figure['max'])}"
        median = f"{_number(figure['value'])}{_unit(figure)}"
        yield f"| `{key}` | {median} | {spread} | {_reach(figure)} | {_verdict(figure)} |"
    yield ""
    yield "CPU microseconds for each transaction (two branches, one UPDATE each), medians of the same run:"
    yield ""
    yield "| | a second | client | coordinator | each service | each Postgres | all |"
    yield "|---|---|---|---|---|---|---|"
    for key, words in CPU_ROWS.items():
        if (load := results["details"].get(key)) is not None:
            yield f"| {words} | {load['per_second']['median']:,.0f} | {' | '.join(_cpu(load['cpu_us']))} |"


def _of(results: Results, by: str) -> Iterator[str]:
    machine = results["machine"]
    yield (
        f"{by} `make bench` on {machine['date'][:10]}: {machine['cores']} cores of an {machine['processor']}, "
        f"{machine['memory_gib']:.0f} GiB, Python {machine['python']} ({machine['python_build']} build), "
        f"PostgreSQL {machine['postgres']}, "
        f"grpcio {machine['grpcio']}; load before the run {machine['load_before']:.1f}."
        + (f" {machine['note'][0].upper()}{machine['note'][1:]}." if machine.get("note") else "")
    )


def _cpu(cpu_us: Mapping[str, Any]) -> Iterator[str]:
    medians = {name: one["median"] for name, one in cpu_us.items()}
    groups = {
        "client": [us for name, us in medians.items() if name == "client"],
        "coordinator": [us for name, us in medians.items() if name in ("coordinator", "server")],
        "service": [us for name, us in medians.items() if name in ("accounts", "ledger") or "participant" in name],
        "postgres": [us for name, us in medians.items() if name.startswith("postgres")],
        "all": [sum(medians.values())],
    }
    for process in PROCESSES:
        found = groups[process]
        mean = sum(found) / len(found) if found else 0.0
        yield f"{mean:,.0f}" if mean >= 10 else ("–" if mean < 3 else f"{mean:.1f}")


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:z.3f}" if abs(value) < 0.1 else f"{value:.2f}"


def _unit(figure: Mapping[str, Any]) -> str:
    return "" if figure["unit"] in ("×", "") else f" {figure['unit']}"


def _reach(figure: Mapping[str, Any]) -> str:
    sign = "≥" if figure["direction"] == "at least" else "≤"
    return "" if figure["reach"] is None else f"{sign} {figure['reach']:g}"


def _verdict(figure: Mapping[str, Any]) -> str:
    return "" if figure["reached"] is None else ("reached" if figure["reached"] else "**not reached**")


def _refresh(path: Path, lines: Iterator[str], *, check: bool) -> bool:
    """Put the lines between the comments; return False when they were not there and must only be checked.

    Raises:
        SystemExit: the page has no place for them.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{path} has no line {BEGIN} with a line {END} after it")
    new = "\n\n" + "\n".join(lines) + "\n\n"
    if check or new == old:
        return new == old
    path.write_text(before + begin + new + end + after, encoding="utf-8")
    return True


PAGES: Mapping[str, Callable[[Results], Iterator[str]]] = {"README.md": short, "docs/performance.md": whole}

if __name__ == "__main__":
    sys.exit(main())
