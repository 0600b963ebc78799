"""The published dispatchers beside dpbal's, on three real traces, lockstep and independent.

    DPBAL_TRACES=... python experiments/peers/run.py            # the table in results.md
    DPBAL_TRACES=... python experiments/peers/run.py --quick    # one window, one load

Every policy meets the same requests. The intervals are the smallest and largest of the windows of
a trace, which are not independent days; nothing here was tuned.
"""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path
from typing import Any

import polars

from dpbal.composition import compose
from dpbal.config import Config
from dpbal.experiment import Experiment
from dpbal.metrics import is_unstable, summarise
from dpbal.progress import Progress
from dpbal.results import gap_closed, share_closed

POLICIES = {
    "round_robin": ["balancer=round_robin"],
    "random": ["balancer=random"],
    "fewest_requests": ["balancer=fewest_requests"],
    "minimum_tokens": ["balancer=minimum_tokens"],
    "sglang_7379": ["preset=sglang_7379"],
    "sglang_0_5_23": ["preset=sglang_0_5_23"],
    "vllm_0_32": ["preset=vllm_0_32"],
    "least_prefill": ["balancer=least_prefill"],
}
TRACES = ("azure_conv", "azure_code", "mooncake_conversation")
KINDS = {"lockstep": "lds_prototype", "independent": "i8b_prototype"}
LOADS = (0.7, 0.85)
WINDOWS = 4
SHOWN = {
    "TTFT s": ("ttft_s", "mean", 1.0),
    "TTFT p99 s": ("ttft_s", "p99", 1.0),
    "TPOT ms": ("tpot_s", "mean", 1e3),
    "E2E s": ("e2e_s", "mean", 1.0),
}


def overrides(trace: str, kind: str, load: float, window: int, policy: str) -> list[str]:
    """The command line of one cell, after ``dpbal-run``."""
    return [
        f"workload={trace}",
        f"workload.windows={WINDOWS}",
        f"workload.window={window}",
        f"workload.load={load}",
        f"group.kind={kind}",
        f"profile={KINDS[kind]}",
        *POLICIES.get(policy, []),
    ]


def run_window(trace: str, kind: str, load: float, window: int) -> list[dict[str, Any]]:
    """All policies and the pooled reference on the same requests."""
    rows = []
    base = compose(*overrides(trace, kind, load, window, "round_robin"))
    first = Experiment(base)
    rate = first.requests.rate
    pooled = summarise(first.run_pooled(), base.slo)
    baseline: dict[str, Any] = {}
    unstable = False
    for policy in POLICIES:
        config: Config = compose(*overrides(trace, kind, load, window, policy))
        config.workload["rate"] = rate
        records = Experiment(config).run(Progress(enabled=False))
        metrics = summarise(records, config.slo)
        own = is_unstable(records)
        if policy == "round_robin":
            baseline, unstable = metrics, own
        closed = gap_closed(metrics, baseline, pooled, unstable)
        rows.append(_row(trace, kind, load, window, policy, metrics, own, closed))
    rows.append(_row(trace, kind, load, window, "pooled", pooled, False, dict.fromkeys(closed)))
    return rows


def _row(
    trace: str,
    kind: str,
    load: float,
    window: int,
    policy: str,
    metrics: dict[str, Any],
    unstable: bool,
    closed: dict[str, float | None],
) -> dict[str, Any]:
    counts = metrics["requests"]
    return {
        "trace": trace,
        "kind": kind,
        "load": load,
        "window": window,
        "policy": policy,
        "lost": counts["offered"] - counts["finished"],
        "unstable": unstable,
        "straggler": metrics["straggler_share"],
        **{name: metrics[key][stat] * scale for name, (key, stat, scale) in SHOWN.items()},
        **{f"gap {name}": value for name, value in closed.items()},
    }


def table(rows: polars.DataFrame) -> str:
    """Markdown: one table a trace, group kind and load; gap closed in brackets, windows' range."""
    parts = []
    for (kind, trace, load), cell in rows.group_by(["kind", "trace", "load"], maintain_order=True):
        of_baseline = cell.filter(polars.col("policy") == "round_robin")
        is_shaky = of_baseline["unstable"].any()
        unsteady = of_baseline["unstable"].sum()
        remark = f" (round robin unstable in {unsteady} of {len(of_baseline)} windows)"
        parts.append(f"\n**{kind}, {trace}, load {load}**{remark if unsteady else ''}\n")
        parts.append("| policy | TTFT s | p99 s | TPOT ms | E2E s | straggler | E2E gap closed |")
        parts.append("|---|---|---|---|---|---|---|")
        baseline = of_baseline.mean()
        pooled = cell.filter(polars.col("policy") == "pooled").mean()
        for policy in [*POLICIES, "pooled"]:
            runs = cell.filter(polars.col("policy") == policy)
            mean = runs.mean()
            cells = [f"{mean[name].item():.3g}" for name in SHOWN]
            for place, name in enumerate(SHOWN):
                gap = share_closed(mean[name].item(), baseline[name].item(), pooled[name].item())
                if gap is not None and not is_shaky and policy not in ("round_robin", "pooled"):
                    cells[place] += f" ({gap:.0%})"
            windows = runs["gap e2e_mean"].drop_nulls()
            has_spread = len(windows) and not is_shaky
            spread = f"[{windows.min():.0%}, {windows.max():.0%}]" if has_spread else "-"
            shown = spread if policy not in ("round_robin", "pooled") else ""
            parts.append(
                f"| {policy} | {' | '.join(cells)} | {mean['straggler'].item():.2f} | {shown} |"
            )
    return "\n".join(parts) + "\n"


def main() -> None:
    """Run all cells and write ``results.csv`` and ``results.md`` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one window at load 0.85")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    if "DPBAL_TRACES" not in os.environ:
        parser.error("set DPBAL_TRACES to the folder that holds the traces")
    loads, windows = ((0.85,), range(1)) if args.quick else (LOADS, range(WINDOWS))
    rows = []
    for kind, trace, load in itertools.product(KINDS, TRACES, loads):
        for window in windows:
            rows += run_window(trace, kind, load, window)
        print(f"{kind} {trace} {load}: done", flush=True)
    frame = polars.DataFrame(rows)
    frame.write_csv(args.out / "results.csv")
    (args.out / "results.md").write_text(table(frame))
    print(f"lost requests: {frame['lost'].sum()} of all runs; table in {args.out / 'results.md'}")


if __name__ == "__main__":
    main()
