"""The study's rows as Markdown: the benchmark by load, and what differs elsewhere."""

from __future__ import annotations

import polars

from experiments.effects import POOLED, table
from experiments.grids import changes, grid
from experiments.pr_7379.cells import AT_ONCE, BASELINE, SHOWN

GAP = "TTFT s"
ELSEWHERE = ("TTFT s", "TPOT ms", "ITL p99 ms")


def text(question: str, rows: polars.DataFrame) -> str:
    """Markdown of a question."""
    return "\n".join(_benchmark(rows) if question == "benchmark" else _elsewhere(rows))


def _benchmark(rows: polars.DataFrame) -> list[str]:
    seeds = rows["draw"].n_unique()
    lines = [f"### The benchmark: lockstep, 16 ranks, 4,096 requests, {seeds} seeds\n"]
    for (load,), cell in rows.group_by(["load"], maintain_order=True):
        lines.append(f"**{'All at once' if load == AT_ONCE else f'Load {load}'}**\n")
        lines += table(cell, "policy", BASELINE, tuple(SHOWN), gap=GAP)
    return lines


def _elsewhere(rows: polars.DataFrame) -> list[str]:
    lines = ["### Other requests, another device, no lockstep\n"]
    names = [polars.col(name) for name in ("kind", "workload", "profile", "load")]
    cell = polars.concat_str(names, separator=", ", ignore_nulls=True)
    known = rows.filter(polars.col("policy") != POOLED).with_columns(cell=cell)
    for column in ELSEWHERE:
        lines.append(f"**{column}, change against `{BASELINE}`**\n")
        lines += grid(known, "cell", "policy", "policy", BASELINE, changes(column))
    return lines
