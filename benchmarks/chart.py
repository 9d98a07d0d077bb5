"""The figures as one picture: each as a share of what it shall reach, so that one line is right for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Picture

from benchmarks.figures import Figure
from benchmarks.report import reach_words, shown

REACHED, NOT_REACHED = "#2a9d63", "#d1495b"
SHARE_MAX = 3.0
_BLANK = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}


def draw(figures: Sequence[Figure], machine: Mapping[str, object], path: Path) -> None:
    """Draw the figures that shall reach something; bars to the right of the line have reached it.

    Args:
        figures: what was measured.
        machine: what it ran on.
        path: the PNG's.
    """
    mpl.use("Agg")
    aimed = [figure for figure in figures if figure.aim.reach is not None][::-1]
    if not aimed:
        return
    picture = Picture(figsize=(10, 1.4 + 0.55 * len(aimed)), layout="constrained")
    axes = picture.subplots()
    for row, figure in enumerate(aimed):
        low, share, high = (min(_share(figure, value), SHARE_MAX) for value in _spread(figure))
        color = REACHED if figure.reached else NOT_REACHED
        axes.barh(row, share, height=0.6, color=color)
        axes.plot([min(low, high), max(low, high)], [row, row], color="#333333", linewidth=1.2)
        words = f"{shown(figure.measured.median)}   (reach {reach_words(figure)})"
        axes.text(max(share, low, high) + 0.03, row, words, va="center", fontsize=9, bbox=_BLANK)
    axes.axvline(1.0, color="#333333", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(aimed)), [figure.key for figure in aimed])
    axes.set_xlim(0, SHARE_MAX + 1.1)
    axes.set_xticks([0, 0.5, 1, 1.5, 2, 2.5, 3], ["0", "½", "reach", "1½", "2×", "2½", "≥ 3×"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Right of the dashed line: reached (median; thin line: slowest and fastest pair)", fontsize=11)
    axes.set_xlabel(f"{machine['cores']} cores, {machine['processor']}, {machine['date']}", fontsize=8)
    picture.savefig(path, dpi=130)


def _spread(figure: Figure) -> tuple[float, float, float]:
    return figure.measured.min, figure.measured.median, figure.measured.max


def _share(figure: Figure, value: float) -> float:
    """How good a value is: 1 is just what it shall reach, more is better, whichever direction its aim has."""
    reach = figure.aim.reach or 0.0
    if figure.aim.direction == "at least":
        return value / reach
    return reach / value if value > 0 else SHARE_MAX
