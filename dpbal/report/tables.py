"""Tables of the page: a run beside its references, or the effects of combinations at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dpbal.comparison.comparison import Comparison
from dpbal.comparison.effects import Verdict
from dpbal.comparison.grouping import Combination
from dpbal.comparison.metrics import DEFAULT, METRICS
from dpbal.comparison.table import Sheet, number, sheets
from dpbal.console import columns, loss_columns
from dpbal.report.overview import COMPONENTS

SIGNS = {Verdict.better.value: "▲", Verdict.worse.value: "▼"}
"""Beside the colour, which not everybody sees and no printer keeps."""
LEFT = {"metric", "combination", "verdict", *COMPONENTS}
"""Columns of words."""
MOST_OPEN = 60
"""Rows of effects that are shown at once; of more, those of each metric unfold."""


@dataclass(frozen=True)
class Cell:
    """One effect at a glance.

    Attributes:
        text: The change, or the baseline's mean.
        verdict: ``better``, ``worse`` or nothing, by which it is coloured.
        told: The mean and the interval.
    """

    text: str
    verdict: str = ""
    told: str = ""


@dataclass(frozen=True)
class Glance:
    """The effects under one setting: a row a combination, a column a metric."""

    title: str
    metrics: list[str]
    rows: list[tuple[str, list[Cell]]]


def run_table(result: dict[str, Any]) -> Sheet:
    """A run beside round robin, pooled and the gap closed, as the console has it."""
    (name, *others), rows = columns(result)
    beside = [one if one == "gap closed" else f"{one} reference" for one in others]
    return Sheet("This run beside its references", ["metric", name, *beside], [rows])


def loss_table(result: dict[str, Any]) -> Sheet | None:
    """Where the loss to the pooled reference goes; None where the run does not have it."""
    loss = result.get("loss")
    if loss is None:
        return None
    parts, rows = loss_columns(loss)
    told = [f"{part} ({loss['best_known'].get(part, 'together')})" for part in parts]
    header = ["metric", "lost", *told]
    return Sheet("Lost to pooled, and the share that goes with the best known part", header, [rows])


def means_table(combination: Combination) -> Sheet:
    """Metrics of a combination that has nothing to be compared with, over its replicates."""
    replicates = combination.replicates.values()
    rows = []
    for metric in (METRICS[name] for name in DEFAULT):
        told = [[metric.of(run.result) for run in runs] for runs in replicates]
        each = [fmean(known) for values in told if (known := [v for v in values if v is not None])]
        if each:
            found = (fmean(each), min(each), max(each))
            label = f"{metric.label} ({metric.unit})"
            rows.append([label, *(number(value, metric) for value in found)])
    count = f"{len(replicates)} replicate{'s' if len(replicates) > 1 else ''}"
    return Sheet(f"Means over {count}", ["metric", "mean", "lowest", "highest"], [rows])


def effects(comparison: Comparison) -> list[Sheet]:
    """For each setting every metric of every combination with its interval."""
    return sheets(comparison)[1::2]


def glance(sheet: Sheet) -> Glance:
    """The same sheet with a row a combination."""
    metrics = [group[0][0] for group in sheet.groups]
    rows = []
    for place, (_, name, *_) in enumerate(sheet.groups[0]):
        cells = []
        for group in sheet.groups:
            _, _, mean, change, interval, verdict = group[place]
            told = f"mean {mean} {interval} {verdict}".strip()
            kept = verdict if verdict in SIGNS else ""
            cells.append(Cell(change or mean, kept, told) if place else Cell(mean))
        rows.append((name, cells))
    return Glance(sheet.title, metrics, rows)
