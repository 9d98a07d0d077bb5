"""``python -m chaos.trace_check FILE…``: follow a run from its traces alone, and say which rules it broke.

The checker reads what ``HANDFAST_TRACE`` made processes write (docs/trace.md) and nothing else: no log, no database, no
module of the product. Exit codes: 0 when every rule held, 1 when one was broken, 2 when a file can't be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.trace_lines import Traces, read
from chaos.trace_rules import Broken, counts, judge

EXIT_OK, EXIT_BROKEN, EXIT_USAGE = 0, 1, 2
_SHOWN_MAX = 50


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run's traces show.

    Args:
        broken: the rules that do not hold.
        by_hand: transactions in which a person had a hand; the rules on outcomes do not judge them.
        counts: how many lines, transactions and processes there were.
    """

    broken: Sequence[Broken]
    by_hand: Collection[str]
    counts: Mapping[str, int]


def check(traces: Traces, *, at_rest: bool = False) -> Verdict:
    """Judge traces.

    Args:
        traces: what was read.
        at_rest: see ``trace_rules.judge``.
    """
    unreadable = [Broken("complete", "", where, "this is no line of a trace") for where in traces.unreadable]
    follower = judge(traces.lines, at_rest=at_rest)
    return Verdict(unreadable + follower.broken, follower.by_hand, counts(traces.lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos.trace_check", description=__doc__.partition(";")[0])
    parser.add_argument("files", nargs="+", type=Path, help="traces of one run, of all its processes")
    parser.add_argument("--at-rest", action="store_true", help="the run came to rest: nothing may be unfinished")
    chosen = parser.parse_args(arguments)
    try:
        traces = read(chosen.files)
    except OSError as problem:
        sys.stderr.write(f"{problem.filename} can't be read: {problem.strerror}\n")
        return EXIT_USAGE
    verdict = check(traces, at_rest=chosen.at_rest)
    sys.stdout.write("".join(f"{line}\n" for line in _report(verdict)))
    return EXIT_BROKEN if verdict.broken else EXIT_OK


def _report(verdict: Verdict) -> Iterator[str]:
    yield from map(str, verdict.broken[:_SHOWN_MAX])
    if len(verdict.broken) > _SHOWN_MAX:
        yield f"… and {len(verdict.broken) - _SHOWN_MAX} more"
    told = [f"{number} {name}" for name, number in verdict.counts.items()]
    told += [f"{len(verdict.by_hand)} transactions resolved by hand"] if verdict.by_hand else []
    yield f"{', '.join(told)}: {f'{len(verdict.broken)} broken rules' if verdict.broken else 'every rule held'}"


if __name__ == "__main__":
    sys.exit(main())
