"""A comparison as tables of text, which the console and Markdown show alike."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.comparison.comparison import Comparison, Table
from dpbal.comparison.effects import Effect, Method, Verdict, mean
from dpbal.comparison.grouping import Combination
from dpbal.comparison.metrics import Metric
from dpbal.comparison.modes import Correction

OUTCOMES = ("offered", "finished", "failed", "aborted", "unfinished")

MEANING = {
    Correction.holm: (
        "Verdicts are corrected over the metrics of a combination (Holm): a combination that does "
        "not differ from the baseline gets any verdict with a chance of at most {risk}."
    ),
    Correction.holm_all: (
        "Verdicts are corrected over all combinations and metrics of a setting (Holm): if none "
        "differs from the baseline, the chance of any verdict is at most {risk}."
    ),
    Correction.none: (
        "Verdicts are not corrected: a metric that does not differ from the baseline gets one with "
        "a chance of {risk}."
    ),
}
NOT_ALL = "So an interval without 0 in it may have no verdict."
"""Said where verdicts are corrected."""


@dataclass(frozen=True)
class Sheet:
    """One table of text.

    Attributes:
        title: Above it.
        header: Names of the columns.
        groups: Rows, in groups with a line between them.
    """

    title: str
    header: list[str]
    groups: list[list[list[str]]]


def sheets(comparison: Comparison) -> list[Sheet]:
    """For each setting what became of the requests, and then the effects."""
    found = []
    for table in comparison.tables:
        setting = f" ({table.setting})" if table.setting else ""
        rows = [_outcomes(one) for one in _everyone(table)]
        header = ["combination", "runs", "replicates", *OUTCOMES, "unstable"]
        found.append(Sheet(f"Requests{setting}", header, [rows]))
        groups = [_effects(table, place) for place in range(len(comparison.metrics))]
        header = [
            "metric",
            "combination",
            "mean",
            "change",
            f"{percent(comparison.level)} interval",
        ]
        found.append(
            Sheet(f"Against {table.baseline.label}{setting}", [*header, "verdict"], groups)
        )
    return found


def legend(comparison: Comparison) -> list[str]:
    """How to read the tables."""
    methods = {e.method for t in comparison.tables for one in t.others for e in one.effects}
    how = {
        Method.paired: "paired t over replicates that met the same requests",
        Method.welch: "Welch's over replicates that met other requests",
        Method.none: "none where a side has one replicate",
    }
    used = [text for method, text in how.items() if method in methods]
    meaning = MEANING[comparison.correct].format(risk=percent(1 - comparison.level))
    return [
        f"Intervals, each by itself at {percent(comparison.level)}, are over replicates (seeds or "
        f"windows), never over requests: {'; '.join(used)}. Changes of times and rates are means "
        "of the logarithms of ratios, those of shares are means of differences.",
        meaning if comparison.correct is Correction.none else f"{meaning} {NOT_ALL}",
    ]


def percent(share: float) -> str:
    """A level or a risk, as a reader expects it."""
    return f"{100 * share:.4g} %"


def number(value: float | None, metric: Metric) -> str:
    """A value with the metric's digits, in its shown unit."""
    return "-" if value is None else f"{value * metric.scale:,.{metric.digits}f}"


def _everyone(table: Table) -> list[Combination]:
    return [table.baseline, *(one.combination for one in table.others)]


def _outcomes(one: Combination) -> list[str]:
    counts = [sum(getattr(run.result.requests, name) for run in one.runs) for name in OUTCOMES]
    unstable = sum(run.result.unstable for run in one.runs)
    numbers = [len(one.runs), len(one.replicates), *counts, unstable]
    return [one.label, *(f"{value:,}" for value in numbers)]


def _effects(table: Table, place: int) -> list[list[str]]:
    metric = table.others[0].effects[place].metric
    label = f"{metric.label} ({metric.unit})"
    rows = [[label, table.baseline.label, number(mean(table.baseline, metric), metric), "", "", ""]]
    for one in table.others:
        effect = one.effects[place]
        change, interval = _change(effect)
        verdict = "" if effect.verdict is Verdict.none else effect.verdict.value
        rows.append(
            ["", one.combination.label, number(effect.mean, metric), change, interval, verdict]
        )
    return rows


def _change(effect: Effect) -> tuple[str, str]:
    estimate, metric = effect.estimate, effect.metric
    if estimate is None:
        return "-", ""
    is_ratio = effect.ratio is not None
    scale = 100.0 if is_ratio else metric.scale
    digits = 1 if is_ratio else metric.digits
    unit = "%" if is_ratio else "points" if metric.is_share else metric.unit
    ends = ""
    if estimate.low is not None and estimate.high is not None:
        ends = (
            f"[{_signed(estimate.low * scale, digits)}, {_signed(estimate.high * scale, digits)}]"
        )
    return f"{_signed(estimate.mean * scale, digits)} {unit}", ends


def _signed(value: float, digits: int) -> str:
    text = f"{value:+,.{digits}f}"
    return f"{0:.{digits}f}" if float(text.replace(",", "")) == 0 else text
