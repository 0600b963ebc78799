"""How many requests each rank has over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dpbal.report import theme
from dpbal.report.contents import Contents
from dpbal.report.figures.base import Drawing
from dpbal.report.figures.labels import Look, anchor, left_out, looks, under

if TYPE_CHECKING:
    import polars

POINTS = 120
MOST_LINES = 32
"""Ranks that get a line each; of more, a band says what their lines would."""
MOST = 3
"""Combinations, of the first setting."""


@theme.styled
def draw(contents: Contents) -> list[Drawing]:
    """One figure for each of a few combinations, on one scale."""
    drawings: list[Drawing] = []
    for selection in contents.selections()[:1]:
        shown = looks(selection)[:MOST]
        runs = [contents.of(look.combination, 1)[0] for look in shown]
        found = [held(contents.steps(run), run.result.config["group"]["ranks"]) for run in runs]
        also = under(selection, len(contents.blocks)) + left_out(selection, MOST)
        most = max((values.max() for _, values in found if values.size), default=0)
        for look, run, (times_s, values) in zip(shown, runs, found, strict=True):
            if values.size:
                drawings.append(
                    Drawing(
                        anchor("load", len(drawings)),
                        look.combination.label,
                        "Requests running and waiting on each rank over the seconds of one run"
                        f" (seed {run.result.seed}): {_meaning(len(values))} Lines that run apart"
                        f" are load that the balancer did not level.{also}",
                        _lines(times_s, values, look, float(most)),
                    )
                )
    return drawings


def held(
    steps: polars.DataFrame, ranks: int, points: int = POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Requests on each rank as its last step left them, at equal distances of time.

    Args:
        steps: ``steps.parquet``.
        ranks: Of the group; those that never stepped hold nothing.
        points: Of time.

    Returns:
        Seconds since the first step ``float64[points]``, and requests ``int64[ranks, points]``.
    """
    if steps.is_empty():
        return np.zeros(0), np.zeros((0, 0), np.int64)
    stepped = steps["rank"].to_numpy()
    ends_s = steps["end_s"].to_numpy() - steps["start_s"].min()
    requests = (steps["running"] + steps["waiting"]).to_numpy().astype(np.int64)
    times_s = np.linspace(0.0, ends_s.max(), points)
    values = np.zeros((ranks, points), np.int64)
    for rank, row in enumerate(values):
        own = stepped == rank
        before = np.searchsorted(ends_s[own], times_s, side="right")
        row[:] = np.concatenate([[0], requests[own]])[before]
    return times_s, values


def _meaning(ranks: int) -> str:
    if ranks > MOST_LINES:
        return "the band holds all ranks, the darker one the middle half, the line is their mean."
    return "one thin line a rank, the thick one is their mean."


def _lines(times_s: np.ndarray, values: np.ndarray, look: Look, most: float) -> str:
    figure, (axes,) = theme.canvas((4.2, 2.5))
    if len(values) > MOST_LINES:
        low, first, third, high = np.quantile(values, [0, 0.25, 0.75, 1], axis=0)
        axes.fill_between(times_s, low, high, color=look.colour, alpha=0.25, linewidth=0)
        axes.fill_between(times_s, first, third, color=look.colour, alpha=0.35, linewidth=0)
    else:
        for row in values:
            axes.plot(times_s, row, color=look.colour, linewidth=0.8, alpha=0.65)
    axes.plot(times_s, values.mean(axis=0), color=theme.FOREGROUND, linewidth=1.6)
    axes.set_xlim(0, times_s[-1])
    axes.set_ylim(0, 1.05 * max(most, 1.0))
    axes.set_xlabel("time, s")
    axes.set_ylabel("requests on a rank")
    return theme.to_svg(figure)
