"""The study's rows as Markdown: latencies beside those without any delay and with the ledger."""

from __future__ import annotations

from itertools import product

import numpy as np
import polars

from experiments.cells import LATENCIES
from experiments.transports.cells import IDEAL

TITLES = {"one": "One front end", "four": "Four front ends"}
CELL = ["workload", "kind", "load"]
SUMMARISED = ("TTFT s", "TTFT p99 s", "E2E s")


def table(question: str, rows: polars.DataFrame) -> str:
    """A summary over all cells, then a table for each cell and balancer."""
    lines = [f"### {TITLES[question]}\n", *_summary(rows)]
    for (balancer, *names), cell in rows.group_by(["balancer", *CELL], maintain_order=True):
        workload, kind, load = names
        lines.append(f"**{balancer}: {workload}, {kind}, load {load}**\n")
        heads = ["transport", "ledger", *LATENCIES]
        lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        base = _base(cell)
        for (transport, ledger), runs in cell.group_by(
            ["transport", "ledger"], maintain_order=True
        ):
            is_base = (transport, ledger) == (IDEAL, "acknowledge")
            values = [
                _mean(name, runs) if is_base else _ratio(name, runs, base) for name in LATENCIES
            ]
            unstable = int(runs["unstable"].sum())
            remark = f", unstable in {unstable} of {len(runs)}" if unstable else ""
            lines.append(f"| {transport} | {ledger}{remark} | {' | '.join(values)} |")
        lines.append("")
    return "\n".join(lines)


def _summary(rows: polars.DataFrame) -> list[str]:
    """Ratios over all cells: the geometric mean, and the least and greatest of a cell."""
    columns = list(product(rows["balancer"].unique(maintain_order=True), SUMMARISED))
    heads = ["transport", "ledger", *(f"{balancer}: {name[:-2]}" for balancer, name in columns)]
    lines = [
        "Latencies over those of `local` with the ledger, geometric mean over the cells below and "
        "the least and greatest of a cell:\n",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for (transport, ledger), runs in rows.group_by(["transport", "ledger"], maintain_order=True):
        values = []
        for balancer, name in columns:
            each = []
            of_balancer = runs.filter(polars.col("balancer") == balancer)
            for cell, own in of_balancer.group_by(CELL, maintain_order=True):
                same = [polars.col(key) == value for key, value in zip(CELL, cell, strict=True)]
                base = _base(rows.filter(polars.col("balancer") == balancer, *same))
                each.append(np.array(own[name]).mean() / np.array(base[name]).mean())
            mean = float(np.exp(np.mean(np.log(each))))
            values.append(f"{mean:.2f} [{min(each):.2f}, {max(each):.2f}]")
        lines.append(f"| {transport} | {ledger} | {' | '.join(values)} |")
    return [*lines, ""]


def _base(cell: polars.DataFrame) -> polars.DataFrame:
    return cell.filter(polars.col("transport") == IDEAL, polars.col("ledger") == "acknowledge")


def _mean(name: str, runs: polars.DataFrame) -> str:
    return f"{float(np.array(runs[name]).mean()):.3g}"


def _ratio(name: str, runs: polars.DataFrame, base: polars.DataFrame) -> str:
    """Ratio of the means, and the range of ratios over windows or seeds."""
    own, other = (np.array(frame.sort("draw")[name]) for frame in (runs, base))
    each = own / other
    return f"{own.mean() / other.mean():.2f} [{each.min():.2f}, {each.max():.2f}]"
