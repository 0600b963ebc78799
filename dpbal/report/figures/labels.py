"""Names and colours of combinations, the same in all figures of a setting."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from dpbal.comparison.grouping import Combination
from dpbal.report import theme
from dpbal.report.contents import Selection

LINE_IN = 0.165
"""Height of a line of a legend."""


@dataclass(frozen=True)
class Look:
    """How a combination is drawn.

    Attributes:
        combination: Which.
        colour: Of the palette; the baseline's is muted.
        dashes: The baseline's line is dashed, so that it is told apart without colour.
    """

    combination: Combination
    colour: str
    dashes: str


def looks(selection: Selection) -> list[Look]:
    """Of the combinations of a setting; one alone is no baseline."""
    chosen = selection.combinations
    if len(chosen) == 1:
        return [Look(chosen[0], theme.BLUE, "-")]
    others = [Look(c, colour, "-") for c, colour in zip(chosen[1:], theme.PALETTE, strict=False)]
    return [Look(chosen[0], theme.MUTED, "--"), *others]


def folded(label: str, width: int = 44) -> str:
    """A label in lines that fit into a small figure."""
    return textwrap.fill(label, width, subsequent_indent="  ", break_on_hyphens=False)


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """One entry a line under the plots; the figure grows by as much."""
    lines = [folded(label) for label in labels]
    height_in = LINE_IN * sum(line.count("\n") + 1 for line in lines) + 0.08
    figure.set_figheight(figure.get_figheight() + height_in)
    figure.legend(handles, lines, loc="outside lower left", labelspacing=0.25)


def left_out(selection: Selection, most: int | None = None) -> str:
    """What a figure does not show or mixes, with a space before it; empty where that is nothing.

    Args:
        selection: Of combinations.
        most: How many of them are shown, where that is not all.
    """
    chosen = selection.combinations[:most]
    settings = {frozenset(one.setting.items()) for one in chosen}
    mixed = " Not all are of the same workload, load or group." if len(settings) > 1 else ""
    everyone = len(selection.combinations) + selection.left_out
    if len(chosen) == everyone:
        return mixed
    return (
        f" Shown are {len(chosen)} of {everyone} combinations: the baseline, and of "
        "each balancer the one with the lowest mean E2E first."
        f"{mixed}"
    )


def under(selection: Selection, settings: int) -> str:
    """A sentence on the setting, of so many, with a space before it; empty where there is one."""
    return f" Setting: {selection.label}, one of {settings}." if settings > 1 else ""


def titled(title: str, selection: Selection) -> str:
    """With the setting, where there are several."""
    return f"{title} ({selection.label})" if selection.label else title


def anchor(name: str, place: int) -> str:
    """Of the figure of a setting."""
    return name if place == 0 else f"{name}-{place + 1}"


def log_axis(axis: Axis) -> None:
    """A logarithmic axis with enough numbers on it to read a value, even within one decade."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter("")


def percent_axis(axes: Axes, which: str = "y") -> None:
    """Label an axis of shares in per cent."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
