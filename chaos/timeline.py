"""The picture of a run: one lane per process, time from left to right, faults shaded, doubt and waiting drawn to scale.

What stands where:

    client        each call: light while it works, full from the moment it asks for the commit; coloured by its end
    coordinator   phase one, the decision, phase two, as far as it remembers them
    services      each branch from the beginning of the call until it is prepared
    databases     each branch while it is in doubt; under it, the writers who wait for its rows
    shaded        the faults, in the lanes of the processes that they concern

Only this module needs matplotlib, and it uses no global state of it: no window, no backend to choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from chaos.events import FaultSpan
from chaos.fault_names import Place, place
from chaos.history import Call, Status
from chaos.observers import joined
from chaos.scenario import DECIDED, Run, Scenario

LANES = ("client", "coordinator", "accounts", "ledger", "postgres-accounts", "postgres-ledger")
_TITLES = {"postgres-accounts": "postgres A\n(accounts)", "postgres-ledger": "postgres B\n(ledger)"}

INK, QUIET, GRID, BAND = "#1f2933", "#7b8794", "#e4e7eb", "#f8f9fb"
WORK, DOUBT, BLOCKED, FAULT, PHASE, HALF = "#c3d3ea", "#7b5ea7", "#d64545", "#f3b6a0", "#4a78b5", "#b7791f"
ENDS = {Status.OK: "#2f9e63", Status.FAIL: "#8d99a6", Status.INFO: "#e0912f"}

_WIDTH_IN, _DPI = 12.0, 100
_ROWS_MAX = 8
_LOW_ROW = 0.5
"""How high a row is in a lane of many rows, where no bar has a name."""
_LABELLED_CALLS_MAX = 8
_NAME_HEIGHT = 0.34
_NO_NAMES_HEIGHT = 0.3
_LABEL_FRACTION_MIN = 0.045
_MARGIN_S = 0.35


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that lasts, to be drawn in a lane."""

    start_s: float
    end_s: float
    colour: str
    label: str = ""
    hatch: str = ""
    inner_s: float | None = None
    """Until here the bar is light: the client works, and has not asked for the commit."""
    only_inside: bool = False
    """Whether the label is left out when there is no room for it."""

    @property
    def light(self) -> bool:
        """Whether its middle is light, so that words in it must be dark."""
        return self.inner_s is not None and self.inner_s > (self.start_s + self.end_s) / 2


Item = TypeVar("Item", bound=Bar)


def draw(run: Run, scenario: Scenario, folder: Path, name: str = "timeline") -> tuple[Path, Path]:
    """Draw a run.

    Args:
        run: what happened.
        scenario: for the title.
        folder: where to save it.
        name: of the files.

    Returns:
        The PNG (1,200 pixels wide) and the SVG.
    """
    picture = Picture(run, scenario)
    paths = folder / f"{name}.png", folder / f"{name}.svg"
    for path in paths:
        picture.figure.savefig(path, dpi=_DPI)
    return paths


class Picture:
    """One run, drawn.

    Args:
        run: what happened.
        scenario: for the title.
    """

    def __init__(self, run: Run, scenario: Scenario) -> None:
        self.run = run
        self.start_s, self.end_s = _extent(run)
        self._names = place(run.faults, LANES, self.start_s, self.end_s)
        self._headroom = {lane: _headroom(self._names, lane) for lane in LANES}
        self._few = len(run.calls) <= _LABELLED_CALLS_MAX
        rows = {lane: _packed(bars) for lane, bars in _bars(run, few=self._few).items()}
        self._heights = {lane: self._lane_height(lane, rows[lane]) for lane in LANES}
        height_in = 1.75 + 0.42 * sum(self._heights.values())
        self.figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, facecolor="white")
        top_in, bottom_in = 0.82, 0.82
        self.axes = self.figure.add_axes(
            (0.105, bottom_in / height_in, 0.875, 1 - (top_in + bottom_in) / height_in), facecolor="white"
        )
        self._title(scenario, height_in)
        self._lanes()
        for fault in run.faults:
            self._fault(fault)
        for name in self._names:
            self._fault_name(name)
        for lane in LANES:
            self._draw_rows(lane, rows[lane])
        self._moments()
        self._legend(height_in)

    # -- frame -----------------------------------------------------------------------------------------------------

    def _title(self, scenario: Scenario, height_in: float) -> None:
        self.figure.text(0.012, 1 - 0.30 / height_in, scenario.name, size=15, weight="bold", color=INK)
        self.figure.text(0.012, 1 - 0.58 / height_in, scenario.teaches, size=9.5, color=QUIET)

    def _lanes(self) -> None:
        axes = self.axes
        axes.set_xlim(self.start_s, self.end_s)
        axes.set_ylim(sum(self._heights.values()), 0)
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(axis="x", colors=QUIET, labelsize=9, length=0, pad=6)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel("seconds since the stack was ready", size=9, color=QUIET, labelpad=3)
        for number, lane in enumerate(LANES):
            top, height = self._top(lane), self._heights[lane]
            if number % 2 == 0:
                axes.axhspan(top, top + height, color=BAND, zorder=0)
            axes.axhline(top, color=GRID, linewidth=0.8, zorder=1)
            axes.text(
                -0.012, top + height / 2, _TITLES.get(lane, lane), transform=axes.get_yaxis_transform(),
                ha="right", va="center", size=10, color=INK, linespacing=1.25,
            )  # fmt: skip

    def _legend(self, height_in: float) -> None:
        entries: list[Patch | Line2D] = [
            Patch(color=ENDS[Status.OK], label="committed"),
            Patch(color=ENDS[Status.FAIL], label="aborted"),
            Patch(color=ENDS[Status.INFO], label="unknown"),
            Patch(color=WORK, label="work"),
            Patch(color=PHASE, label="phase one, two"),
            Line2D([], [], marker="D", linestyle="", color=INK, markersize=5, label="decision"),
            Patch(color=DOUBT, label="in doubt"),
            Patch(facecolor="white", edgecolor=BLOCKED, hatch="////", label="writer waits"),
            Patch(color=FAULT, alpha=0.55, label="fault"),
        ]
        self.figure.legend(
            handles=entries, loc="lower center", bbox_to_anchor=(0.54, 0.06 / height_in), ncols=len(entries),
            frameon=False, fontsize=9, labelcolor=INK, handlelength=1.3, handletextpad=0.5, columnspacing=1.4,
        )  # fmt: skip

    # -- contents --------------------------------------------------------------------------------------------------

    def _fault(self, fault: FaultSpan) -> None:
        end_s = self.end_s if fault.end_s is None else fault.end_s
        width_s = max(end_s - fault.start_s, (self.end_s - self.start_s) * 0.003)
        for lane in fault.lanes:
            if lane in LANES:
                top, height = self._top(lane), self._heights[lane]
                self.axes.add_patch(
                    Rectangle((fault.start_s, top), width_s, height, color=FAULT, alpha=0.45, linewidth=0, zorder=2)
                )
                self.axes.plot([fault.start_s] * 2, [top, top + height], color="#c4532f", linewidth=1, zorder=2)

    def _fault_name(self, name: Place) -> None:
        self.axes.text(
            name.at_s, self._top(name.lane) + 0.26 + _NAME_HEIGHT * name.line, name.fault.label,
            ha="right" if name.leftwards else "left", va="center", size=8.5, color="#8f3415", zorder=6,
        )  # fmt: skip

    def _draw_rows(self, lane: str, rows: Sequence[Sequence[Bar]]) -> None:
        top = self._top(lane) + self._headroom[lane]
        for row in rows:
            height = self._row_height(row)
            for bar in row:
                self._bar(bar, top + 0.14 * height, 0.72 * height)
            top += height

    def _bar(self, bar: Bar, y: float, height: float) -> None:
        thin_s = (self.end_s - self.start_s) * 0.0012
        width_s = max(bar.end_s - bar.start_s, thin_s)
        if bar.hatch:
            style = {"facecolor": "white", "edgecolor": bar.colour, "hatch": bar.hatch, "linewidth": 0.9}
        else:
            style = {"facecolor": bar.colour, "edgecolor": "none"}
        self.axes.add_patch(Rectangle((bar.start_s, y), width_s, height, zorder=4, **style))  # type: ignore[arg-type]  # the stub knows each keyword by its own type
        if bar.inner_s is not None and bar.inner_s > bar.start_s:
            light_s = min(bar.inner_s, bar.end_s) - bar.start_s
            self.axes.add_patch(
                Rectangle((bar.start_s, y), light_s, height, facecolor=WORK, edgecolor="none", zorder=5)
            )
        if bar.label:
            self._bar_label(bar, y + height / 2)

    def _bar_label(self, bar: Bar, y: float) -> None:
        """Inside when there is room, otherwise beside it."""
        span_s = self.end_s - self.start_s
        inside = (bar.end_s - bar.start_s) / span_s > _LABEL_FRACTION_MIN + 0.0062 * len(bar.label)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.92} if bar.hatch else None
        if inside:
            x, align, colour = (bar.start_s + bar.end_s) / 2, "center", INK if bar.hatch or bar.light else "white"
        elif bar.only_inside:
            return
        elif bar.end_s > self.start_s + 0.8 * span_s:
            x, align, colour, box = bar.start_s - 0.006 * span_s, "right", INK, None
        else:
            x, align, colour, box = bar.end_s + 0.006 * span_s, "left", INK, None
        self.axes.text(x, y, bar.label, ha=align, va="center", size=8.5, color=colour, zorder=7, bbox=box)

    def _moments(self) -> None:
        """The decisions, as diamonds in the coordinator's lane: when the record was made, before any crash."""
        y = self._top("coordinator") + self._headroom["coordinator"] + (0.5 if self._few else 0.25)
        marker, size = ("D", 5) if self._few else ("|", 9)
        for moments in self.run.phases.values():
            for at_s, event in moments:
                if event == DECIDED:
                    self.axes.plot([at_s], [y], color=INK, zorder=8, linestyle="", marker=marker, markersize=size)

    def _row_height(self, row: Sequence[Bar]) -> float:
        return 1.0 if self._few or any(bar.label for bar in row) else _LOW_ROW

    def _lane_height(self, lane: str, rows: Sequence[Sequence[Bar]]) -> float:
        return self._headroom[lane] + max(0.55, sum(map(self._row_height, rows))) + 0.12

    def _top(self, lane: str) -> float:
        return sum(self._heights[other] for other in LANES[: LANES.index(lane)])


def _headroom(names: Iterable[Place], lane: str) -> float:
    """How high the strip at the top of a lane is, where faults have their names."""
    lines = max((name.line + 1 for name in names if name.lane == lane), default=0)
    return 0.16 + _NAME_HEIGHT * lines if lines else _NO_NAMES_HEIGHT


def _extent(run: Run) -> tuple[float, float]:
    """From when to when the picture goes: what happened, and a little air."""
    starts = [call.start_s for call in run.calls] + [fault.start_s for fault in run.faults]
    ends = [call.end_s for call in run.calls if call.end_s] + [fault.end_s for fault in run.faults if fault.end_s]
    ends += [one.end_s for one in run.in_doubt if one.end_s] + [one.end_s for one in run.blocked]
    start_s, end_s = min(starts, default=0.0), max(ends, default=run.ended_s or 1.0)
    margin_s = max(_MARGIN_S, 0.03 * (end_s - start_s))
    return max(0.0, start_s - margin_s), end_s + margin_s


def _bars(run: Run, *, few: bool) -> dict[str, list[Bar]]:
    """What is drawn in each lane; with names when the calls are few."""
    bars: dict[str, list[Bar]] = {lane: [] for lane in LANES}
    bars["client"] = [_call_bar(call, run, labelled=few) for call in run.calls]
    for seen in run.half_seen:
        label = f"a reader of both sees {seen.difference:+d} cents, {seen.end_s - seen.start_s:.1f} s"
        bars["client"].append(Bar(seen.start_s, seen.end_s, HALF, label))
    bars["coordinator"] = [bar for moments in run.phases.values() for bar in _phase_bars(moments, labelled=few)]
    begun = {call.gtrid: call.start_s for call in run.calls if call.gtrid}
    for one in run.in_doubt:
        end_s = run.ended_s if one.end_s is None else one.end_s
        label = f"in doubt {end_s - one.start_s:.1f} s" if end_s - one.start_s > (0.2 if few else 1) else ""
        bars[f"postgres-{one.database}"].append(Bar(one.start_s, end_s, DOUBT, label, only_inside=not few))
        if one.gtrid in begun:
            bars[one.database].append(Bar(begun[one.gtrid], one.start_s, WORK))
    for wait in joined(run.blocked):
        why = "unreachable" if wait.kind == "unreachable" else f"writer of row {wait.row} waits"
        label = f"{why} {wait.seconds:.1f} s" if few else f"{wait.seconds:.1f} s" if wait.seconds > 0.5 else ""
        bars[f"postgres-{wait.database}"].append(Bar(wait.start_s, wait.end_s, BLOCKED, label, "////"))
    return bars


def _call_bar(call: Call, run: Run, *, labelled: bool) -> Bar:
    end_s = run.ended_s if call.end_s is None else call.end_s
    label = f"{call.kind} {end_s - call.start_s:.1f} s: {_ENDINGS[call.status]}" if labelled else ""
    inner_s = end_s if call.commit_s is None else call.commit_s
    return Bar(call.start_s, end_s, ENDS[call.status], label, inner_s=inner_s)


_ENDINGS = {Status.OK: "committed", Status.FAIL: "aborted", Status.INFO: "unknown"}


def _phase_bars(moments: Sequence[tuple[float, str]], *, labelled: bool) -> Iterable[Bar]:
    """Phase one from the request to the last vote, phase two from the decision to the last branch's end."""
    at = {event: [at_s for at_s, name in moments if name == event] for event in {name for _, name in moments}}
    if "CommitRequested" in at and "VoteReceived" in at:
        yield Bar(
            at["CommitRequested"][0], max(at["VoteReceived"]), PHASE, "phase one" if labelled else "", only_inside=True
        )
    if "DecisionStood" in at and "BranchEnded" in at:
        yield Bar(
            at["DecisionStood"][0], max(at["BranchEnded"]), PHASE, "phase two" if labelled else "", only_inside=True
        )


def _packed(bars: Iterable[Bar]) -> list[list[Bar]]:
    """Put bars into rows so that none covers another; past the last row they do."""
    rows: list[list[Bar]] = []
    for bar in sorted(bars, key=lambda one: (bool(one.hatch), one.start_s)):
        free = next(
            (row for row in rows if row[-1].end_s <= bar.start_s and bool(row[-1].hatch) == bool(bar.hatch)), None
        )
        if free is not None:
            free.append(bar)
        elif len(rows) < _ROWS_MAX:
            rows.append([bar])
        else:
            rows[-1].append(bar)
    return rows
