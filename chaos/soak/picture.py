"""The curves of a soak: one panel per measure, one line per process, the warm-up shaded, deaths marked."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chaos.soak.endure import Soaked
from chaos.soak.flatness import WARM_UP, Measure
from chaos.timeline import BAND, FAULT, GRID, INK, QUIET

_COLOURS = {
    "coordinator": "#7b5ea7",
    "accounts-1": "#4a78b5",
    "ledger-1": "#2f9e63",
    "postgres-accounts": "#e0912f",
    "postgres-ledger": "#d64545",
}
_WIDTH_IN, _ROW_IN, _COLUMNS, _DPI = 13.0, 3.0, 2, 110
_EDGES = {"left": 0.05, "right": 0.98, "top": 0.92, "bottom": 0.09, "hspace": 0.22, "wspace": 0.1}


def draw(soaked: Soaked, file: Path) -> None:
    """Write the picture.

    Args:
        soaked: what to draw.
        file: where; its ending tells the format.
    """
    measures = list(Measure)
    rows = -(-len(measures) // _COLUMNS)
    figure = Figure(figsize=(_WIDTH_IN, _ROW_IN * rows + 1.0), dpi=_DPI)
    figure.subplots_adjust(**_EDGES)
    panels = figure.subplots(rows, _COLUMNS, sharex=True, squeeze=False)
    for panel, measure in zip(panels.flat, measures, strict=False):
        _panel(panel, soaked, measure)
    for panel in panels[-1]:
        panel.set_xlabel("minutes", color=QUIET)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=max(1, len(labels)), frameon=False)
    flat = sum(one.is_flat for one in soaked.judgements)
    figure.suptitle(
        f"{soaked.seconds / 60:.0f} minutes under {len(soaked.faults)} faults, {len(soaked.calls)} transfers: "
        f"{flat} of {len(soaked.judgements)} curves flat (shaded: warm-up; ticks below: faults)",
        color=INK,
        fontsize=11,
    )
    figure.savefig(file)


def _panel(panel: Axes, soaked: Soaked, measure: Measure) -> None:
    panel.set_title(measure.value, loc="left", fontsize=10, color=INK)
    panel.axvspan(0, soaked.seconds * WARM_UP / 60, color=BAND, zorder=0)
    panel.grid(color=GRID, linewidth=0.6)
    grown = {(one.process, one.measure) for one in soaked.judgements if not one.is_flat}
    for (process, one), samples in sorted(soaked.seen.items(), key=lambda item: item[0][0]):
        if one is not measure:
            continue
        minutes, values = [at_s / 60 for at_s, _ in samples], [value for _, value in samples]
        width = 2.4 if (process, one) in grown else 1.1
        panel.plot(minutes, values, color=_COLOURS.get(process, QUIET), linewidth=width, label=process)
    panel.set_ylim(bottom=0)
    starts = [fault.start_s / 60 for fault in soaked.faults]
    panel.plot(starts, [0] * len(starts), "|", color=FAULT, markersize=7, clip_on=False)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.set_xlim(0, soaked.seconds / 60)
