"""How much of the ranks' time goes into waiting for the slowest, over the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dpbal.report import theme
from dpbal.report.contents import Contents, Selection
from dpbal.report.figures.base import Drawing
from dpbal.report.figures.labels import (
    anchor,
    left_out,
    legend_below,
    looks,
    percent_axis,
    titled,
)
from dpbal.report.files import is_lockstep

if TYPE_CHECKING:
    import polars

BINS = 50


@theme.styled
def draw(contents: Contents) -> list[Drawing]:
    """One figure for each setting whose ranks step together."""
    drawings = []
    for place, selection in enumerate(contents.selections()):
        svg = _lines(contents, selection)
        if svg is not None:
            drawings.append(
                Drawing(
                    anchor("stragglers", place),
                    titled("Waiting for the slowest rank", selection),
                    "Share of the ranks' time that they wait for the slowest of a step, in"
                    f" {BINS} windows of equal length over the first run of each combination."
                    f"{left_out(selection)}",
                    svg,
                )
            )
    return drawings


def shares(steps: polars.DataFrame, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
    """The straggler share of windows of equal length, by the start of their steps.

    Returns:
        Middles of the windows in seconds since the first step, and shares, nan where no rank of
        any step had anything to do; both ``float64[bins]``.
    """
    ranks = steps["rank"].n_unique()
    local_s = steps["local_s"].to_numpy().reshape(-1, ranks)
    starts_s = steps["start_s"].to_numpy().reshape(-1, ranks)[:, 0]
    starts_s = starts_s - starts_s[0]
    edges_s = np.linspace(0.0, np.nextafter(starts_s[-1], np.inf), bins + 1)
    place = np.clip(np.searchsorted(edges_s, starts_s, side="right") - 1, 0, bins - 1)
    mean_s = np.bincount(place, local_s.mean(axis=1), bins)
    longest_s = np.bincount(place, local_s.max(axis=1), bins)
    waited = np.full(bins, np.nan)
    np.divide(longest_s - mean_s, longest_s, out=waited, where=longest_s > 0)
    return (edges_s[:-1] + edges_s[1:]) / 2, waited


def _lines(contents: Contents, selection: Selection) -> str | None:
    figure, (axes,) = theme.canvas()
    handles, labels = [], []
    for look in looks(selection):
        for run in contents.of(look.combination, 1):
            steps = contents.steps(run)
            if not is_lockstep(run) or steps.is_empty():
                continue
            x, y = shares(steps)
            (line,) = axes.plot(x, y, color=look.colour, linestyle=look.dashes, linewidth=1.3)
            handles.append(line)
            labels.append(look.combination.label)
    if not handles:
        return None
    axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    percent_axis(axes)
    axes.set_xlabel("time, s")
    axes.set_ylabel("straggler share")
    legend_below(figure, handles, labels)
    return theme.to_svg(figure)
