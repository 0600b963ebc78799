"""The study's rows as Markdown: a table a cell, with shares of the gap; and goodput by load."""

from __future__ import annotations

import numpy as np
import polars

from dpbal.results import share_closed
from experiments.cells import LATENCIES

TITLES = {
    "gap": "85 % load, all peers",
    "loads": "By load",
    "robust": "Late vectors, wrong constants, more ranks, padding",
    "reasoning": "Reasoning: first tokens of long prompts against everybody's other tokens",
}
CELL = ["workload", "profile", "load", "overrides"]
ATTAINED = 0.9


def table(question: str, rows: polars.DataFrame) -> str:
    """A table a cell: means over its windows or seeds, in brackets the share of the gap closed."""
    lines = [f"### {TITLES[question]}\n"]
    for (workload, profile, load, overrides), cell in rows.group_by(CELL, maintain_order=True):
        worst = cell.filter(polars.col("policy") == "round_robin")
        best = cell.filter(polars.col("policy") == "pooled")
        is_shaky = bool(worst["unstable"].any())
        title = ", ".join(
            str(part) for part in (workload, profile, f"load {load}", overrides) if part
        )
        remark = " (round robin unstable: no shares)" if is_shaky else ""
        lines += [f"**{title}**{remark}\n", "| policy | TTFT s | p99 s | TPOT ms | E2E s |"]
        lines.append("|---|---|---|---|---|")
        for (policy,), runs in cell.group_by(["policy"], maintain_order=True):
            cells = [
                _value(name, runs, worst, best, with_share=not is_shaky and policy != "round_robin")
                for name in LATENCIES
            ]
            unstable = ", unstable" if runs["unstable"].any() else ""
            lines.append(f"| {policy}{_chosen(policy, runs)}{unstable} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _chosen(policy: str, runs: polars.DataFrame) -> str:
    """The tuned value, for a policy that had a choice."""
    if not policy.endswith(("chunk", "interval", "aligned", "time_cap")):
        return ""
    values = [part.split("=")[1] for part in runs["setting"][0].split() if part.count(".") > 0]
    return f" ({', '.join(values)})"


def _value(
    name: str,
    runs: polars.DataFrame,
    worst: polars.DataFrame,
    best: polars.DataFrame,
    with_share: bool,
) -> str:
    own, high, low = (np.array(frame[name]) for frame in (runs, worst, best))
    text = f"{own.mean():.3g}"
    share = share_closed(float(own.mean()), float(high.mean()), float(low.mean()))
    if not with_share or share is None or runs["policy"][0] == "pooled":
        return text
    each = [
        share_closed(*triple)
        for triple in zip(own.tolist(), high.tolist(), low.tolist(), strict=True)
    ]
    known = [s for s in each if s is not None]
    spread = f" [{min(known):.0%}, {max(known):.0%}]" if name == "E2E s" and known else ""
    return f"{text} ({share:.0%}{spread})"


def goodput_table(rows: polars.DataFrame) -> str:
    """By trace: share of requests that met both objectives at each load, and the load at 90 %."""
    lines = ["### Requests that meet TTFT and TPOT objectives\n"]
    for (workload,), cell in rows.group_by(["workload"], maintain_order=True):
        loads = sorted(set(cell["load"]))
        heads = " | ".join(f"{load:g}" for load in loads)
        lines += [f"**{workload}**\n", f"| policy, load | {heads} | load at 90 % |"]
        lines.append("|---" * (len(loads) + 2) + "|")
        for (policy,), runs in cell.group_by(["policy"], maintain_order=True):
            good = [
                np.array(runs.filter(polars.col("load") == load)["good"]).mean() for load in loads
            ]
            shown = " | ".join(f"{share:.1%}" for share in good)
            lines.append(f"| {policy} | {shown} | {_load_at(loads, good)} |")
        lines.append("")
    return "\n".join(lines)


def _load_at(loads: list[float], good: list[float]) -> str:
    """Where the share falls through 90 %, on a line between the two loads about it."""
    if good[0] < ATTAINED:
        return f"< {loads[0]:g}"
    for k in range(1, len(loads)):
        if good[k] < ATTAINED:
            part = (good[k - 1] - ATTAINED) / (good[k - 1] - good[k])
            return f"{loads[k - 1] + part * (loads[k] - loads[k - 1]):.2f}"
    return f"> {loads[-1]:g}"
