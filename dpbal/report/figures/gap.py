"""How much of the way from round robin to the pooled reference each combination goes."""

from __future__ import annotations

from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from dpbal.comparison.grouping import Combination
from dpbal.report import theme
from dpbal.report.contents import Contents
from dpbal.report.figures.base import Drawing
from dpbal.report.figures.labels import (
    LINE_IN,
    anchor,
    folded,
    left_out,
    percent_axis,
    titled,
)

METRICS = {
    "ttft_mean": ("TTFT mean", theme.BLUE),
    "ttft_p99": ("TTFT p99", theme.TEAL),
    "tpot_mean": ("TPOT mean", theme.ORANGE),
    "e2e_mean": ("E2E mean", theme.PURPLE),
}
END = 1.0
"""Bars and whiskers end there, above and below 0; the number of a bar says how far it would go."""
BAR = 0.18
LABEL = 72
"""Characters of a name that fit, small where there are so many."""

Shares = dict[str, list[float]]


@theme.styled
def draw(contents: Contents) -> list[Drawing]:
    """One figure for each setting in which any combination closes a part of a gap."""
    drawings = []
    for place, selection in enumerate(contents.selections(with_tables=False)):
        found = [(one, closed(contents, one)) for one in selection.combinations]
        told = [(one, shares) for one, shares in found if any(any(v) for v in shares.values())]
        if told:
            drawings.append(
                Drawing(
                    anchor("gap", place),
                    titled("Share of the gap to pooled that is closed", selection),
                    "0 % is round robin with the fixed budget, 100 % the pooled reference, below 0"
                    " is worse than round robin. Bars are means over replicates, whiskers go from"
                    " the lowest to the highest; both end at 100 % and -100 %, where a bar's number"
                    " goes on. There is no bar where any run has no such gap."
                    f"{left_out(selection)}",
                    _bars(told),
                )
            )
    return drawings


def closed(contents: Contents, combination: Combination) -> Shares:
    """The shares of a combination's runs by metric; none where any of the runs has none."""
    gaps = [contents.raw(run)["gap_closed"] or {} for run in combination.runs]
    found = {name: [gap[name] for gap in gaps if gap.get(name) is not None] for name in METRICS}
    # a mean over those runs that have one would be of other requests than the others' means
    return {name: each if len(each) == len(gaps) else [] for name, each in found.items()}


def _bars(told: list[tuple[Combination, Shares]]) -> str:
    figure, (axes,) = theme.canvas((4.2, 0.9 + (4 * 0.15 + 0.3) * len(told)))
    for row, (combination, shares) in enumerate(told):
        lines = folded(combination.label, LABEL).split("\n")
        title = lines[0] + (" ..." if len(lines) > 1 else "")
        axes.text(
            0.0,
            row - 0.47,
            title,
            va="center",
            ha="left",
            fontsize=9.0 if len(title) <= 56 else 7.5,
            transform=axes.get_yaxis_transform(),
        )
        for place, (name, (_, colour)) in enumerate(METRICS.items()):
            _bar(axes, row - 0.25 + BAR * place, shares[name], colour)
    axes.axvline(0, color=theme.MUTED, linewidth=0.8)
    axes.set_xlim(-1.3 if _lowest(told) < 0 else 0, 1.3)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1] if _lowest(told) < 0 else [0, 0.25, 0.5, 0.75, 1])
    axes.set_ylim(len(told) - 0.4, -0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    percent_axis(axes, "x")
    handles = [Patch(color=colour, label=label) for label, colour in METRICS.values()]
    figure.set_figheight(figure.get_figheight() + 2 * LINE_IN)
    figure.legend(handles=handles, loc="outside lower left", ncols=2, labelspacing=0.25)
    return theme.to_svg(figure)


def _bar(axes: Axes, y: float, shares: list[float], colour: str) -> None:
    if not shares:
        return
    value = fmean(shares)
    ends = np.clip([min(shares), value, max(shares)], -END, END)
    axes.barh(y, ends[1], BAR * 0.85, color=colour)
    if len(shares) > 1:
        axes.hlines(y, ends[0], ends[2], color=theme.FOREGROUND, linewidth=0.9)
    at, side = (ends[0] - 0.03, "right") if value < 0 else (ends[2] + 0.03, "left")
    axes.text(at, y, f"{100 * value:.0f} %", va="center", ha=side, fontsize=7.5)


def _lowest(told: list[tuple[Combination, Shares]]) -> float:
    return min(min(values, default=0.0) for _, shares in told for values in shares.values())
