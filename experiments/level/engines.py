"""The level budget on real vLLM engines with emulated GPUs, beside what the simulator predicts.

    python -m experiments.level.engines            # half an hour, 2 cores that do nothing else
    python -m experiments.level.engines --quick    # one seed

Lockstep, eight ranks, 85 % load, the default profile. Policies of a seed run in random order on the
same requests. Each run goes into engines.csv as it ends, and what is there is not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import polars
from scipy import stats

from dpbal.composition import compose
from dpbal.experiment import Experiment
from dpbal.progress import Progress
from experiments.engine_runs import complete, shuffled
from experiments.fidelity.run import CHAT, measure

ALIGNED = [
    "balancer=least_prefill",
    "budget=aligned",
    "budget.timeout_iters=10",
    "budget.batching_wait_iters=0",
]
LEVEL = ["balancer=least_prefill", "budget=level"]
POLICIES = {
    # on real engines, in the simulator
    "vllm_native": (["balancer=vllm_native"], ["preset=vllm_0_32"]),
    "vllm_native + prefill_schedule_interval 2": (
        ["balancer=vllm_native", "backend.prefill_schedule_interval=2"],
        ["preset=vllm_0_32", "budget=interval", "budget.interval_steps=2"],
    ),
    "round_robin": (["balancer=round_robin"], ["balancer=round_robin"]),
    "least_prefill + aligned": (ALIGNED, ALIGNED),
    "least_prefill + level": (LEVEL, LEVEL),
}
FROM, TO = "vllm_native", "least_prefill + level"
SEEDS = (0, 1, 2, 3, 4)
METRICS = ("TTFT s", "TPOT ms", "E2E s", "straggler %")


def run_policy(policy: str, seed: int) -> list[dict[str, Any]]:
    """Real engines and the simulator on one set of requests."""
    shared = [line.replace("{seed}", str(seed)) for line in CHAT]
    shared += ["workload.requests=1000", "workload.load=0.85"]
    real, simulated = POLICIES[policy]
    backends = {
        "engines": ["backend=vllm", "backend.dilation=1.0", *real],
        "simulator": ["transport=shm", *simulated],
    }
    rows = []
    for backend, lines in backends.items():
        experiment = Experiment(compose(*shared, *lines))
        measured = measure(experiment.run(Progress(enabled=False)), experiment)
        rows.append({"policy": policy, "seed": seed, "backend": backend, **measured})
    return rows


def table(runs: polars.DataFrame) -> str:
    """Markdown: means of both, and how much of the predicted improvement the engines show."""
    lines = [
        "### On real engines\n",
        "| policy | " + " | ".join(f"{m} engines / simulator" for m in METRICS) + " |",
        "|---" * (len(METRICS) + 1) + "|",
    ]
    for policy in POLICIES:
        own = runs.filter(polars.col("policy") == policy)
        cells = []
        for metric in METRICS:
            means = [
                own.filter(polars.col("backend") == backend)[metric].mean()
                for backend in ("engines", "simulator")
            ]
            cells.append(f"{means[0]:.3g} / {means[1]:.3g}")
        lines.append(f"| {policy} | {' | '.join(cells)} |")
    lines.append(
        f"\nImprovement of `{TO}` over `{FROM}`, mean over {runs['seed'].n_unique()} seeds with a "
        "95 % t interval, and the share of it of what the simulator predicts:\n"
    )
    lines += ["| metric | engines | simulator | engines / simulator |", "|---|---|---|---|"]
    for metric in METRICS[:3]:
        gains = {backend: _gain(runs, metric, backend) for backend in ("engines", "simulator")}
        cells = [_interval(100 * gains[backend], " %") for backend in gains]
        share = _interval(100 * gains["engines"] / gains["simulator"], " %")
        lines.append(f"| {metric} | {' | '.join(cells)} | {share} |")
    late = runs["late share"].max()
    load = runs["machine load"]
    lines.append(
        f"\nRequests lost: {runs['lost'].sum()}; at most {late:.2%} of the steps came late; "
        f"machine load {load.min():.1f} to {load.max():.1f}."
    )
    return "\n".join(lines) + "\n"


def _gain(runs: polars.DataFrame, metric: str, backend: str) -> np.ndarray:
    """``float64[seeds]``: what part of the first policy's value the other saves."""
    own = runs.filter(polars.col("backend") == backend).sort("seed")
    first, last = (np.array(own.filter(polars.col("policy") == p)[metric]) for p in (FROM, TO))
    saved: np.ndarray = 1 - last / first
    return saved


def _interval(values: np.ndarray, unit: str) -> str:
    if len(values) < 2:
        return f"{values.mean():.1f}{unit}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.1f} ± {half:.1f}{unit}"


def main() -> None:
    """Run what is not in engines.csv yet, and write engines.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    cases = shuffled(POLICIES, SEEDS[:1] if args.quick else SEEDS)
    runs = complete(args.out / "engines.csv", ("policy", "seed"), cases, run_policy)
    (args.out / "engines.md").write_text(table(runs))


if __name__ == "__main__":
    main()
