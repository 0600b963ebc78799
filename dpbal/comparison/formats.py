"""Writes a comparison: to the console, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
import sys
from typing import TYPE_CHECKING

from dpbal.comparison.comparison import Comparison
from dpbal.comparison.effects import Effect, Verdict, lost_share, mean
from dpbal.comparison.grouping import Combination
from dpbal.comparison.metrics import Metric
from dpbal.comparison.statistics import Estimate
from dpbal.comparison.table import OUTCOMES, Sheet, legend, sheets
from dpbal.console import output

if TYPE_CHECKING:
    from rich.table import Table as RichTable

COLOURS = {Verdict.better.value: "green", Verdict.worse.value: "red"}

COLUMNS = (
    "setting", "baseline", "combination", "metric", "unit", "baseline_mean", "mean",
    "change", "change_low", "change_high",
    "relative_change", "relative_change_low", "relative_change_high",
    "level", "method", "p", "p_adjusted", "correction", "verdict",
    "replicates", "baseline_replicates", "runs", *OUTCOMES, "lost_share", "unstable_runs",
)  # fmt: skip
"""Of the CSV, in the units of ``result.json``; an empty cell is a number that there is not."""


def show(comparison: Comparison) -> None:
    """Print a comparison."""
    console = output()
    for sheet in sheets(comparison):
        console.print(f"[bold]{_plain(sheet.title)}[/bold]", highlight=False)
        console.print(_rich(sheet))
        console.print()
    for line in legend(comparison):
        console.print(_plain(line), highlight=False, soft_wrap=not sys.stdout.isatty())
    for line in comparison.warnings:
        text = f"[yellow]warning:[/yellow] {_plain(line)}"
        console.print(text, highlight=False, soft_wrap=not sys.stdout.isatty())


def markdown(comparison: Comparison) -> str:
    """The same tables as Markdown."""
    parts = []
    for sheet in sheets(comparison):
        rows = [row for group in sheet.groups for row in group]
        sides = ["---" if place in _left(sheet) else "---:" for place in range(len(sheet.header))]
        lines = [sheet.header, sides, *rows]
        text = "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)
        parts.append(f"**{sheet.title}**\n\n{text}")
    parts += legend(comparison)
    if comparison.warnings:
        parts.append("\n".join(f"* Warning: {line}" for line in comparison.warnings))
    return "\n\n".join(parts) + "\n"


def to_csv(comparison: Comparison) -> str:
    """One row for each setting, combination and metric, those of the baseline first."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in comparison.tables:
        same = {
            "setting": table.setting,
            "baseline": table.baseline.label,
            "level": comparison.level,
            "correction": comparison.correct.value,
        }
        for metric in comparison.metrics:
            value = mean(table.baseline, metric)
            row = {**_metric(metric), "baseline_mean": value, "mean": value}
            writer.writerow(same | _ran(table.baseline) | row)
        for one in table.others:
            for effect in one.effects:
                writer.writerow(same | _ran(one.combination) | _row(effect))
    return out.getvalue()


def _ran(combination: Combination) -> dict[str, object]:
    results = [run.result for run in combination.runs]
    return {
        "combination": combination.label,
        "replicates": len(combination.replicates),
        "runs": len(results),
        **{name: sum(getattr(result.requests, name) for result in results) for name in OUTCOMES},
        "lost_share": lost_share(combination),
        "unstable_runs": sum(result.unstable for result in results),
    }


def _metric(metric: Metric) -> dict[str, object]:
    unit = "" if metric.is_share else metric.unit.replace("ms", "s")
    return {"metric": metric.name, "unit": unit}


def _row(effect: Effect) -> dict[str, object]:
    estimate = effect.estimate
    return {
        **_metric(effect.metric),
        "baseline_mean": effect.baseline_mean,
        "mean": effect.mean,
        **_numbers("change", effect.difference),
        **_numbers("relative_change", effect.ratio),
        "method": effect.method.value,
        "p": None if estimate is None else estimate.p,
        "p_adjusted": effect.p_adjusted,
        "verdict": "" if effect.verdict is Verdict.none else effect.verdict.value,
        "replicates": effect.replicates,
        "baseline_replicates": effect.baseline_replicates,
    }


def _numbers(name: str, estimate: Estimate | None) -> dict[str, object]:
    if estimate is None:
        return {}
    return {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _rich(sheet: Sheet) -> RichTable:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(sheet.header):
        table.add_column(name, justify="left" if place in _left(sheet) else "right")
    for group in sheet.groups:
        for place, row in enumerate(group):
            cells = [Text(cell, style=COLOURS.get(cell, "")) for cell in row]
            table.add_row(*cells, end_section=place == len(group) - 1)
    return table


def _left(sheet: Sheet) -> set[int]:
    words = ("metric", "combination", "verdict")
    return {place for place, name in enumerate(sheet.header) if name in words}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
