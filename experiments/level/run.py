"""Prefill budgets in lockstep groups: what closes the gap that placement leaves open.

    DPBAL_TRACES=... python experiments/level/run.py            # the table in results.md
    DPBAL_TRACES=... python experiments/level/run.py --quick    # one trace, one profile

Windows 2 and 3 of four; ``time_cap`` gets the time that was best end to end on windows 0 and 1 of
the same trace, profile and load. ``level`` has its defaults everywhere: they were chosen in a study
of a prototype that had seen all four windows of these traces, though not the second profile.
"""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path
from typing import Any

import polars

from dpbal.composition import compose
from dpbal.experiment import Experiment
from dpbal.metrics import is_unstable, summarise
from dpbal.progress import Progress

POLICIES = {
    "round_robin": ["balancer=round_robin"],
    "vllm_0_32": ["preset=vllm_0_32"],
    "least_prefill": ["balancer=least_prefill"],
    "least_prefill + interval": ["balancer=least_prefill", "budget=interval"],
    "least_prefill + aligned": ["balancer=least_prefill", "budget=aligned", "budget.ranks=4"],
    "least_prefill + time_cap": ["balancer=least_prefill", "budget=time_cap"],
    "round_robin + level": ["balancer=round_robin", "budget=level"],
    "minimum_tokens + level": ["balancer=minimum_tokens", "budget=level"],
    "least_prefill + level": ["balancer=least_prefill", "budget=level"],
    "least_prefill + level, no credit": [
        "balancer=least_prefill",
        "budget=level",
        "budget.ttft_weight=null",
    ],
    "least_prefill + level, deadline 5 s": [
        "balancer=least_prefill",
        "budget=level",
        "budget.ttft_deadline_s=5",
    ],
}
TRACES = ("azure_conv", "azure_code", "mooncake_conversation")
PROFILES = ("lds_prototype", "deepseek_v3_h200")
LOADS = (0.5, 0.85)
WINDOWS = (2, 3)
TUNING_WINDOWS = (0, 1)
CAPS_S = (0.02, 0.05, 0.1, 0.2)
SHOWN = {
    "TTFT s": ("ttft_s", "mean", 1.0),
    "TTFT p99 s": ("ttft_s", "p99", 1.0),
    "TPOT ms": ("tpot_s", "mean", 1e3),
    "E2E s": ("e2e_s", "mean", 1.0),
}


def run(trace: str, profile: str, load: float, window: int, *policy: str) -> dict[str, Any]:
    """One policy on one window, and the pooled reference where no policy is given."""
    config = compose(
        f"workload={trace}",
        "workload.windows=4",
        f"workload.window={window}",
        f"workload.load={load}",
        f"profile={profile}",
        *policy,
    )
    experiment = Experiment(config)
    records = experiment.run(Progress(enabled=False)) if policy else experiment.run_pooled()
    metrics: dict[str, Any] = dict(summarise(records, config.slo))
    counts = metrics["requests"]
    return {
        "trace": trace,
        "profile": profile,
        "load": load,
        "window": window,
        **{name: metrics[key][stat] * scale for name, (key, stat, scale) in SHOWN.items()},
        "goodput": metrics["goodput_rps"],
        "straggler": metrics["straggler_share"],
        "lost": counts["offered"] - counts["finished"],
        "unstable": is_unstable(records),
    }


def best_cap_s(trace: str, profile: str, load: float) -> float:
    """The cap with the smallest mean end-to-end latency on the windows for tuning."""

    def e2e_s(cap_s: float) -> float:
        policy = (*POLICIES["least_prefill + time_cap"], f"budget.step_s={cap_s}")
        runs = [run(trace, profile, load, window, *policy) for window in TUNING_WINDOWS]
        return float(sum(row["E2E s"] for row in runs))

    return min(CAPS_S, key=e2e_s)


def table(rows: polars.DataFrame) -> str:
    """Markdown: a table a trace, profile and load; means of the windows, gap closed in brackets."""
    lines = []
    for (trace, profile, load), cell in rows.group_by(
        ["trace", "profile", "load"], maintain_order=True
    ):
        worst = cell.filter(polars.col("policy") == "round_robin")
        best = cell.filter(polars.col("policy") == "pooled")
        shaky = bool(worst["unstable"].any())
        remark = ", round robin unstable: no shares" if shaky else ""
        lines.append(f"\n**{trace}, {profile}, load {load}**{remark}\n")
        lines.append("| policy | TTFT s | p99 s | TPOT ms | E2E s | good req/s | straggler |")
        lines.append("|---|---|---|---|---|---|---|")
        for (policy,), runs in cell.group_by(["policy"], maintain_order=True):
            cells = []
            for name in SHOWN:
                own, high, low = (f[name].mean() for f in (runs, worst, best))
                text = f"{own:.3g}"
                if (
                    not shaky
                    and policy not in ("round_robin", "pooled")
                    and high - low > 0.05 * high
                ):
                    text += f" ({(high - own) / (high - low):.0%})"
                cells.append(text)
            cells.append(f"{runs['goodput'].mean():.3g}")
            cells.append(f"{runs['straggler'].mean():.2f}")
            lines.append(f"| {policy} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all cells and write ``results.csv`` and ``results.md`` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="conv and the prototype's profile")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    if "DPBAL_TRACES" not in os.environ:
        parser.error("set DPBAL_TRACES to the folder that holds the traces")
    cells = list(itertools.product(TRACES, PROFILES, LOADS))
    rows = []
    for trace, profile, load in cells[:2] if args.quick else cells:
        cap_s = best_cap_s(trace, profile, load)
        for policy, window in itertools.product([*POLICIES, "pooled"], WINDOWS):
            lines = list(POLICIES.get(policy, []))
            shown = policy
            if policy == "least_prefill + time_cap":
                lines.append(f"budget.step_s={cap_s}")
                shown = f"{policy} {cap_s} s"
            rows.append({"policy": shown, **run(trace, profile, load, window, *lines)})
        print(f"{trace} {profile} {load}: done", flush=True)
    frame = polars.DataFrame(rows)
    frame.write_csv(args.out / "results.csv")
    (args.out / "results.md").write_text(table(frame))
    print(f"lost requests: {frame['lost'].sum()}; table in {args.out / 'results.md'}")


if __name__ == "__main__":
    main()
