"""The simulator beside a public measurement of vLLM's ``--prefill-schedule-interval``.

    python experiments/public_measurement/run.py    # about three minutes

vLLM PR #44558: DeepSeek-R1 in FP4, attention DP8 and EP8 on two nodes of four GB200, random prompts
of 1k tokens, 200 tokens out, Poisson at 24 requests/s. The profile ``deepseek_r1_gb200`` gets its
penalty of mixed steps, and nothing else, from the row with prefill at every step (interval 1):
median gap between tokens and mean time per token. The row of interval 2 is then predicted.

How many requests there were is not published. 2400 (100 s of arrivals) explains the throughput of
22.4 requests/s at 24 offered: the last request takes seven seconds more, 200 steps of 32 ms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import t as student

from dpbal.composition import compose
from dpbal.experiment import Experiment
from dpbal.metrics import duration_s, summarise
from dpbal.progress import Progress

MEASURED = {
    "interval 1": {
        "P50 ITL ms": 274.9,
        "mean ITL ms": 236.7,
        "mean TPOT ms": 240.5,
        "mean TTFT ms": 813.0,
        "P99 TTFT ms": 2476.0,
        "requests/s": 22.43,
    },
    "interval 2": {
        "P50 ITL ms": 32.1,
        "mean ITL ms": 139.4,
        "mean TPOT ms": 140.2,
        "mean TTFT ms": 502.0,
        "P99 TTFT ms": 1475.0,
        "requests/s": 22.59,
    },
}
for row in MEASURED.values():  # not published, but it follows
    row["mean E2E s"] = 1e-3 * (row["mean TTFT ms"] + 199 * row["mean TPOT ms"])
COLUMNS = tuple(MEASURED["interval 1"])
FITTED_TO = ("P50 ITL ms", "mean TPOT ms")

LOAD = (
    "profile=deepseek_r1_gb200",
    "workload=synthetic",
    "workload.rate=24",
    "workload.load=null",
    "workload.allow_overload=true",
    "workload.prompt.parts=[{mean_tokens: 1024, sigma: 0}]",
    "workload.output.parts=[{mean_tokens: 200, sigma: 0}]",
    "backend.max_num_batched_tokens=8192",
    "backend.max_num_seqs=1024",
)
POLICIES = {
    "interval 1": ["preset=vllm_0_32"],
    "interval 2": ["preset=vllm_0_32", "budget=interval"],
    "interval 4": ["preset=vllm_0_32", "budget=interval", "budget.interval_steps=4"],
    "least_prefill": ["balancer=least_prefill"],
    "least_prefill + interval 2": ["balancer=least_prefill", "budget=interval"],
    "least_prefill + level": ["balancer=least_prefill", "budget=level"],
    "least_prefill + level, ttft_weight 32": [
        "balancer=least_prefill",
        "budget=level",
        "budget.ttft_weight=32",
    ],
}
REQUESTS = 2400
FIT_SEEDS = range(3)
SEEDS = range(10, 20)

TOKEN_CONSTANTS = {"prefill_s_per_token": 26.1e-6, "attention_s_per_pair": 2.16e-9}
"""Of the profile, scaled in the second fit."""


def run(seed: int, *policy: str, requests: int = REQUESTS) -> dict[str, float]:
    """One run of the load, with the columns of the published table."""
    config = compose(*LOAD, f"workload.requests={requests}", f"seed={seed}", *policy)
    records = Experiment(config).run(Progress(enabled=False))
    metrics: dict[str, Any] = dict(summarise(records, config.slo))
    return {
        "P50 ITL ms": 1e3 * metrics["itl_s"]["p50"],
        "mean ITL ms": 1e3 * metrics["itl_s"]["mean"],
        "mean TPOT ms": 1e3 * metrics["tpot_s"]["mean"],
        "mean TTFT ms": 1e3 * metrics["ttft_s"]["mean"],
        "P99 TTFT ms": 1e3 * metrics["ttft_s"]["p99"],
        "requests/s": metrics["requests"]["finished"] / duration_s(records),
        "mean E2E s": metrics["e2e_s"]["mean"],
    }


def miss(penalty_s: float, scale: float) -> float:
    """Sum of the squared relative misses of what the fit is made to, over ``FIT_SEEDS``."""
    if penalty_s < 0 or scale < 0:
        return float("inf")
    values = constants(penalty_s, scale)
    runs = [run(seed, *POLICIES["interval 1"], *values) for seed in FIT_SEEDS]
    return float(
        sum(
            (np.mean([row[column] for row in runs]) / MEASURED["interval 1"][column] - 1) ** 2
            for column in FITTED_TO
        )
    )


def constants(penalty_s: float, scale: float = 1.0) -> list[str]:
    """Overrides of the profile."""
    scaled = [f"profile.{name}={value * scale}" for name, value in TOKEN_CONSTANTS.items()]
    return [f"profile.mixed_penalty_s={penalty_s}", *(scaled if scale != 1 else [])]


def predict(name: str, values: list[str], requests: int = REQUESTS) -> list[dict[str, Any]]:
    """All policies on all seeds."""
    return [
        {"constants": name, "policy": policy, "seed": seed}
        | run(seed, *overrides, *values, requests=requests)
        for policy, overrides in POLICIES.items()
        for seed in SEEDS
    ]


def table(rows: polars.DataFrame) -> str:
    """Markdown: means with 95 % intervals over seeds, measured rows beside them."""
    lines = []
    for (name,), part in rows.group_by(["constants"], maintain_order=True):
        lines += [
            f"\n**{name}**\n",
            f"| | {' | '.join(COLUMNS)} |",
            "|---" * (len(COLUMNS) + 1) + "|",
        ]
        for (policy,), runs in part.group_by(["policy"], maintain_order=True):
            if policy in MEASURED:
                shown = [f"{MEASURED[policy][column]:.4g}" for column in COLUMNS]
                lines.append(f"| {policy}, measured | {' | '.join(shown)} |")
            shown = [interval(runs[column].to_numpy()) for column in COLUMNS]
            lines.append(f"| {policy}, simulated | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def interval(numbers: np.ndarray) -> str:
    """Mean and half width of the 95 % t interval."""
    half = student.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers))
    return f"{numbers.mean():.4g} ± {half:.2g}"


def main() -> None:
    """Fit, predict, and write ``results.csv`` and ``results.md`` beside this file."""
    one = minimize_scalar(
        lambda penalty_s: miss(penalty_s, 1.0),
        bounds=(0.05, 0.4),
        method="bounded",
        options={"xatol": 5e-4},
    )
    penalty_s = round(float(one.x), 3)
    print(f"penalty {1e3 * penalty_s:.0f} ms, miss {one.fun:.4f}", flush=True)
    two = minimize(
        lambda x: miss(float(x[0]), float(x[1])),
        [penalty_s, 1.5],
        method="Nelder-Mead",
        options={"xatol": 2e-3, "fatol": 1e-5, "maxfev": 60},
    )
    other_s, scale = round(float(two.x[0]), 3), round(float(two.x[1]), 2)
    print(f"penalty {1e3 * other_s:.0f} ms, prefill x {scale}, miss {two.fun:.4f}", flush=True)
    rows = [
        *predict(f"penalty {1e3 * penalty_s:.0f} ms (the profile)", constants(penalty_s)),
        *predict(
            f"penalty {1e3 * other_s:.0f} ms, prefill {scale} times as slow as the tables say",
            constants(other_s, scale),
        ),
        *predict(
            f"penalty {1e3 * penalty_s:.0f} ms, twice as many requests",
            constants(penalty_s),
            2 * REQUESTS,
        ),
    ]
    frame = polars.DataFrame(rows)
    here = Path(__file__).parent
    frame.write_csv(here / "results.csv", float_precision=4)
    (here / "results.md").write_text(table(frame))
    print(table(frame))


if __name__ == "__main__":
    main()
