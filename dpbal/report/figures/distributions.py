"""How many requests took longer: TTFT, TPOT and E2E of each combination."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dpbal.metrics import times_s
from dpbal.report import theme
from dpbal.report.contents import MOST_RUNS, Contents, Selection
from dpbal.report.figures.base import Drawing
from dpbal.report.figures.labels import (
    anchor,
    left_out,
    legend_below,
    log_axis,
    looks,
    percent_axis,
    titled,
)
from dpbal.report.files import finished

if TYPE_CHECKING:
    import polars

LATENCIES = {
    "ttft": ("Time to first token", "s"),
    "tpot": ("Time per output token", "ms"),
    "e2e": ("End to end", "s"),
}
FEWEST = 3
"""Requests beyond the end of a curve: the last ones say nothing of the next run's."""
LOWEST = 1e-3
POINTS = 60


@theme.styled
def draw(contents: Contents) -> list[Drawing]:
    """One small figure for each latency and setting."""
    drawings = []
    for place, selection in enumerate(contents.selections()):
        measured = _measured(contents, selection)
        for name, (title, unit) in LATENCIES.items():
            values = {index: found[name] for index, found in measured.items()}
            if not any(len(each) for each in values.values()):
                continue
            drawings.append(
                Drawing(
                    anchor(name, place),
                    titled(title, selection),
                    f"Share of the finished requests that took longer, by {name.upper()} in {unit};"
                    " both axes are logarithmic, and 1 % is p99. The first runs of a combination,"
                    f" up to {MOST_RUNS}, are pooled.{left_out(selection)}",
                    _curves(selection, values, name.upper(), unit),
                )
            )
    return drawings


def latencies_s(requests: polars.DataFrame) -> dict[str, np.ndarray]:
    """TTFT, TPOT and E2E of the finished requests; TPOT of those that have one."""
    ttft_s, e2e_s, tpot_s = times_s(finished(requests))
    return {"ttft": ttft_s, "tpot": tpot_s[~np.isnan(tpot_s)], "e2e": e2e_s}


def survival(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of the curve: values, and the share of all that are greater."""
    lowest = min(0.5, max(LOWEST, FEWEST / len(values)))
    shares = np.concatenate(
        [
            np.linspace(1.0, 0.5, POINTS // 2, endpoint=False),
            np.geomspace(0.5, lowest, POINTS),
        ]
    )
    return np.quantile(values, 1 - shares), shares


def _measured(contents: Contents, selection: Selection) -> dict[int, dict[str, np.ndarray]]:
    """Latencies by the place of a combination, its runs pooled."""
    found = {}
    for index, combination in enumerate(selection.combinations):
        runs = [latencies_s(contents.requests(run)) for run in contents.of(combination)]
        if runs:
            found[index] = {name: np.concatenate([run[name] for run in runs]) for name in LATENCIES}
    return found


def _curves(selection: Selection, values_s: dict[int, np.ndarray], name: str, unit: str) -> str:
    figure, (axes,) = theme.canvas()
    scale = 1e3 if unit == "ms" else 1.0
    handles, labels = [], []
    everyone = looks(selection)
    for index, found_s in values_s.items():
        found_s = found_s[found_s > 0]
        if len(found_s) == 0:
            continue
        look = everyone[index]
        x, y = survival(found_s)
        (line,) = axes.plot(x * scale, y, color=look.colour, linestyle=look.dashes)
        handles.append(line)
        labels.append(look.combination.label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(top=1.2)
    log_axis(axes.xaxis)
    percent_axis(axes)
    axes.set_xlabel(f"{name}, {unit}")
    axes.set_ylabel("took longer")
    legend_below(figure, handles, labels)
    return theme.to_svg(figure)
