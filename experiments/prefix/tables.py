"""The study's rows as Markdown: a table a cell, beside the pooled machine and beside our rule."""

from __future__ import annotations

import numpy as np
import polars

from experiments.prefix.cells import SHOWN
from experiments.prefix.rules import BLIND, OURS

TITLES = {
    "tuning": "Choosing the patience (windows and seeds that are reported nowhere else)",
    "rules": "Every rule",
    "knowledge": "What `marginal_prefill` may know",
    "stress": "Stress",
}
BESIDE = {"tuning": BLIND, "rules": OURS, "knowledge": "oracle", "stress": BLIND}
"""What each question compares E2E latency with, on the same requests."""

CELL = ["workload", "kind", "load", "overrides"]


def table(question: str, rows: polars.DataFrame) -> str:
    """A table a cell: means over its windows or seeds, ratios with the range over them."""
    beside = BESIDE[question]
    lines = [f"### {TITLES[question]}\n"]
    for (workload, kind, load, overrides), cell in rows.group_by(CELL, maintain_order=True):
        title = ", ".join(
            str(part) for part in (workload, kind, f"load {load}", overrides or "") if part
        )
        heads = ["rule", *SHOWN, "E2E / pooled", f"E2E / {beside}"]
        lines += [f"**{title}**\n", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        best = cell.filter(polars.col("rule") == "pooled")
        base = cell.filter(polars.col("rule") == beside)
        for (rule,), runs in cell.group_by(["rule"], maintain_order=True):
            values = [_mean(name, runs) for name in SHOWN]
            ratios = [_ratio(runs, best), _ratio(runs, base)]
            if rule in ("pooled", beside):
                ratios[rule == beside] = ""
            unstable = int(runs["unstable"].sum())
            remark = f", unstable in {unstable} of {len(runs)}" if unstable else ""
            lines.append(f"| {rule}{remark} | {' | '.join([*values, *ratios])} |")
        lines.append("")
    return "\n".join(lines)


def _mean(name: str, runs: polars.DataFrame) -> str:
    mean = float(np.array(runs[name]).mean())
    return f"{mean:.3f}" if name in ("hits", "straggler") else f"{mean:.3g}"


def _ratio(runs: polars.DataFrame, base: polars.DataFrame) -> str:
    """Ratio of the mean E2E latencies, and its range over windows or seeds."""
    own, other = (np.array(frame.sort("draw")["E2E s"]) for frame in (runs, base))
    each = own / other
    return f"{own.mean() / other.mean():.2f} [{each.min():.2f}, {each.max():.2f}]"
