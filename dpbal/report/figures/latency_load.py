"""Latency against load: a line for each combination that ran under several."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from statistics import fmean

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dpbal.comparison.grouping import Combination, blocks
from dpbal.comparison.metrics import METRICS, Metric
from dpbal.report import theme
from dpbal.report.contents import MOST_COMBINATIONS, MOST_SETTINGS, Contents, asked_load
from dpbal.report.figures.base import Drawing
from dpbal.report.figures.labels import anchor, legend_below

RATE, LOAD = "workload.rate", "workload.load"
AXES = {
    LOAD: "load, share of the pooled machine's rate",
    RATE: "arrivals, requests/s",
}
SHOWN = ("ttft_mean", "ttft_p99", "e2e_mean")
WIDE_RANGE = 20.0
"""Times that differ by more than this factor are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Line:
    """A combination under all its loads.

    Attributes:
        label: Its name.
        is_baseline: Whether the others are compared with it, under most of the loads.
        points: What ran under each load, in order of the load.
    """

    label: str
    is_baseline: bool
    points: dict[float, Combination]

    def values(self, metric: Metric) -> dict[float, list[float]]:
        """Of each load one value a replicate; a load is left out where a run has none."""
        found = {}
        for load, combination in self.points.items():
            replicates = combination.replicates.values()
            values = [[metric.of(run.result) for run in runs] for runs in replicates]
            told = [[value for value in each if value is not None] for each in values]
            if told and all(told):
                found[load] = [fmean(each) for each in told]
        return found

    def is_unstable(self, load: float) -> bool:
        """Whether any run under that load is."""
        return any(run.result.unstable for run in self.points[load].runs)


@dataclass(frozen=True)
class Sweep:
    """Lines that belong into one figure.

    Attributes:
        label: Of the setting, the load apart; empty where there is one.
        key: What differs, of the config.
        lines: Those shown, the baseline first.
        left_out: How many are not among them.
    """

    label: str
    key: str
    lines: list[Line]
    left_out: int


@theme.styled
def draw(contents: Contents) -> list[Drawing]:
    """For each setting one small figure of each latency; none where only one load ran."""
    drawings = []
    for place, sweep in enumerate(sweeps(contents)):
        for name in SHOWN:
            metric = METRICS[name]
            svg = _chart(sweep, metric)
            title = f"{metric.label} against load"
            if svg:
                drawings.append(
                    Drawing(
                        anchor(f"load-{name.replace('_', '-')}", place),
                        f"{title} ({sweep.label})" if sweep.label else title,
                        _caption(sweep, metric),
                        svg,
                    )
                )
    return drawings


def sweeps(contents: Contents) -> list[Sweep]:
    """What ran under several loads, by setting: the first settings, and a few lines of each."""
    found = []
    for key in (LOAD, RATE):
        pooled = _pooled(contents, key)
        for block in blocks(pooled) if pooled else []:
            lines = [_line(combination, key) for combination in block.combinations]
            several = [one for one in lines if len(one.points) > 1]
            # where nearly all ran under one load, a second one is the chance of a random sweep
            if 2 * len(several) >= len(lines):
                lines = _ordered(contents, _with_baseline(contents, several))
                shown = lines[:MOST_COMBINATIONS]
                found.append(Sweep(block.label, key, shown, len(lines) - len(shown)))
    return found[:MOST_SETTINGS]


def _pooled(contents: Contents, key: str) -> list[Combination]:
    """Combinations whose runs differ in load too."""
    found: dict[Hashable, Combination] = {}
    for block in contents.blocks:
        for one in block.combinations:
            workload = one.runs[0].result.config["workload"]
            if (asked_load(workload) if key == LOAD else workload.get("rate")) is None:
                continue
            rest = {name: value for name, value in one.setting.items() if name not in AXES}
            same = (frozenset(one.policy.items()), frozenset(rest.items()))
            found.setdefault(same, Combination(one.policy, rest)).runs.extend(one.runs)
    return list(found.values())


def _line(combination: Combination, key: str) -> Line:
    group, _, name = key.partition(".")
    points: dict[float, Combination] = {}
    for run in combination.runs:
        load = float(run.result.config[group][name])
        points.setdefault(load, replace(combination, runs=[])).runs.append(run)
    return Line(combination.label, False, dict(sorted(points.items())))


def _with_baseline(contents: Contents, lines: list[Line]) -> list[Line]:
    """One line is the baseline: that which most loads have as theirs."""
    first = {base.runs[0].directory for base in contents.baselines}
    led = [
        sum(run.directory in first for one in line.points.values() for run in one.runs)
        for line in lines
    ]
    most = max(led, default=0)
    place = led.index(most) if most else None
    return [replace(line, is_baseline=i == place) for i, line in enumerate(lines)]


def _ordered(contents: Contents, lines: list[Line]) -> list[Line]:
    """The baseline, then as in the other figures of the page, then by how much ran."""
    known = [one.label for each in contents.selections() for one in each.combinations]
    return sorted(
        lines,
        key=lambda one: (
            not one.is_baseline,
            known.index(one.label) if one.label in known else len(known),
            -len(one.points),
        ),
    )


def _chart(sweep: Sweep, metric: Metric) -> str:
    """The figure, or nothing where no line has two values."""
    figure, (axes,) = theme.canvas()
    handles: list[Artist] = []
    labels, everything, has_unstable = [], [], False
    colours = iter(theme.PALETTE)
    for line in sweep.lines:
        values = {x: [v * metric.scale for v in ys] for x, ys in line.values(metric).items()}
        colour = theme.MUTED if line.is_baseline else next(colours)
        if len(values) < 2:
            continue
        loads, means = list(values), [fmean(ys) for ys in values.values()]
        style = "--" if line.is_baseline else "-"
        handles += axes.plot(loads, means, style, color=colour, marker="o", markersize=3)
        ends = [min(ys) for ys in values.values()], [max(ys) for ys in values.values()]
        axes.fill_between(loads, *ends, color=colour, alpha=0.13, linewidth=0)
        labels.append(line.label)
        everything += [*ends[0], *ends[1]]
        unstable = [place for place, load in enumerate(loads) if line.is_unstable(load)]
        has_unstable |= bool(unstable)
        crosses = [loads[i] for i in unstable], [means[i] for i in unstable]
        axes.plot(*crosses, "x", color=colour, markersize=8, markeredgewidth=1.6)
    if not labels:
        return ""
    if has_unstable:
        handles.append(Line2D([], [], linestyle="", marker="x", markersize=8, color=theme.MUTED))
        labels.append("a run is unstable")
    _scale(axes, everything)
    axes.set_xlabel(AXES[sweep.key])
    axes.set_ylabel(f"{metric.label}, {metric.unit}")
    legend_below(figure, handles, labels)
    return theme.to_svg(figure)


def _scale(axes: Axes, values: list[float]) -> None:
    if 0 < WIDE_RANGE * min(values) < max(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter("")
    else:
        axes.set_ylim(0, 1.05 * max(values))


def _caption(sweep: Sweep, metric: Metric) -> str:
    count = max(len(one.replicates) for line in sweep.lines for one in line.points.values())
    against = "load as a share of the pooled machine's rate" if sweep.key == LOAD else "arrivals"
    text = f"{metric.label} of the finished requests in {metric.unit}, against the {against}."
    if count > 1:
        text += (
            " Lines are means, bands go from the lowest to the highest replicate; as replicates"
            " vary together, the intervals of the table say whether two lines differ."
        )
    if any(line.is_unstable(load) for line in sweep.lines for load in line.points):
        text += " At a cross queues grew all along: the value depends on the length of the run."
    if sweep.left_out:
        shown = len(sweep.lines)
        text += f" Shown are {shown} of {shown + sweep.left_out} combinations, the baseline first."
    return text
