"""How the figures of studies look: one style, and the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpbal.comparison.statistics import Estimate

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")
"""Of the policies, in order; a policy has the same one in all panels."""

WIDE_IN = 8.0


def panels(columns: int, rows: int = 1, height_in: float = 3.0) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, on a white ground that is legible on dark pages too."""
    figure = Figure(figsize=(WIDE_IN, height_in * rows), facecolor="white", layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", linewidth=0.4, color="#d0d0d0")
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8)
        panel.title.set_fontsize(9)
    return figure, list(axes.flat)


def band(
    panel: Axes, x: np.ndarray, draws: np.ndarray, label: str, colour: str, style: str = "-"
) -> None:
    """A line through the means, and a band from the least to the greatest draw.

    Args:
        panel: Where.
        x: ``[n]``, its place.
        draws: ``[n, draws]``, the values.
        label: Of the line.
        colour: One of ``COLOURS``.
        style: Of the line, as matplotlib has it.
    """
    panel.plot(x, draws.mean(axis=1), style, color=colour, label=label, linewidth=1.4, marker=".")
    panel.fill_between(x, draws.min(axis=1), draws.max(axis=1), color=colour, alpha=0.15, lw=0)


def interval(
    panel: Axes,
    at: float,
    effect: Estimate,
    colour: str,
    width: float,
    label: str | None = None,
    across: bool = False,
) -> None:
    """A point and the interval of how many times the baseline's a value is.

    Args:
        panel: Where.
        at: Its place on the other axis.
        effect: A relative change.
        colour: One of ``COLOURS``.
        width: Of the interval's line, in points.
        label: Of the point.
        across: Whether changes go from left to right, not upwards.
    """
    # a single draw has no interval
    low, high = (effect.mean if end is None else end for end in (effect.low, effect.high))
    line, point = ([at, at], [1 + low, 1 + high]), ([at], [1 + effect.mean])
    if across:
        line, point = line[::-1], point[::-1]
    panel.plot(*line, color=colour, linewidth=width)
    panel.plot(*point, "o", color=colour, markersize=4, label=label)


def save(figure: Figure, name: str) -> None:
    """Write ``docs/images/study_NAME.svg``, with letters as letters."""
    IMAGES.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "dpbal", "svg.fonttype": "none"}):
        figure.savefig(IMAGES / f"study_{name}.svg", metadata={"Date": None})
