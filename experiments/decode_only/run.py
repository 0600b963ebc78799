"""Groups that only decode, as in PD decode pools: what placement gains there.

    python experiments/decode_only/run.py            # the table in results.md
    python experiments/decode_only/run.py --quick    # one seed

Prompts arrive with their KV: prefill takes no time, and a step has room for all of it. Every policy
meets the same requests of a seed; nothing was tuned.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import polars

from dpbal.composition import compose
from dpbal.experiment import Experiment
from dpbal.metrics import summarise
from dpbal.progress import Progress

POLICIES = {
    "round_robin": ["balancer=round_robin"],
    "fewest_requests": ["balancer=fewest_requests"],
    "minimum_tokens": ["balancer=minimum_tokens"],
    "total_tokens": ["balancer=total_tokens"],
    "sglang_0_5_23": ["preset=sglang_0_5_23"],
    "decode_margin by decode_work": ["balancer=decode_margin", "signal=decode_work"],
    "decode_margin": ["balancer=decode_margin"],
    "decode_margin, held": ["balancer=decode_margin", "backend.hold=true"],
}
WORKLOADS = ("reasoning", "conv_like")
PROFILES = ("lds_prototype", "deepseek_v3_h200")
DECODE_ONLY = [
    "profile.prefill_s_per_token=0",
    "profile.attention_s_per_pair=0",
    "profile.common_s_per_token=0",  # or prompts would pay for it
    "backend.max_num_batched_tokens=131072",
    "workload.load=0.85",
]


def run_seed(workload: str, profile: str, seed: int) -> list[dict[str, Any]]:
    """All policies and the pooled reference on the same requests."""
    base = [f"workload={workload}", f"profile={profile}", f"seed={seed}", *DECODE_ONLY]
    first = Experiment(compose(*base))
    runs = {"pooled": first.run_pooled()}
    for policy, chosen in POLICIES.items():
        config = compose(*base, *chosen)
        config.workload["rate"] = first.requests.rate
        runs[policy] = Experiment(config).run(Progress(enabled=False))
    rows = []
    for policy, records in runs.items():
        metrics: dict[str, Any] = summarise(records, first.config.slo)
        rows.append(
            {
                "workload": workload,
                "profile": profile,
                "seed": seed,
                "policy": policy,
                "lost": metrics["requests"]["offered"] - metrics["requests"]["finished"],
                "e2e_s": metrics["e2e_s"]["mean"],
                "tpot_ms": metrics["tpot_s"]["mean"] * 1e3,
                "tpot_p99_ms": metrics["tpot_s"]["p99"] * 1e3,
                "straggler": metrics["straggler_share"],
            }
        )
    return rows


def table(rows: polars.DataFrame) -> str:
    """Markdown: one table a workload and profile; means over the seeds, and the seeds' range."""
    parts = []
    for (workload, profile), cell in rows.group_by(["workload", "profile"], maintain_order=True):
        e2e_s = {
            policy: cell.filter(polars.col("policy") == policy)["e2e_s"].to_numpy()
            for policy in [*POLICIES, "pooled"]
        }
        turn, pooled = e2e_s["round_robin"], e2e_s["pooled"]
        gap = ((turn - pooled) / turn).mean()
        parts.append(
            f"\n**{workload}, {profile}**: the whole gap is {gap:.1%} of round robin's E2E\n"
        )
        parts.append("| policy | E2E s | TPOT ms | p99 ms | straggler | E2E | gap closed |")
        parts.append("|---|---|---|---|---|---|---|")
        for policy, own in e2e_s.items():
            mean = cell.filter(polars.col("policy") == policy).mean()
            numbers = [f"{mean[name].item():.4g}" for name in ("e2e_s", "tpot_ms", "tpot_p99_ms")]
            saved, closed = 1 - own / turn, (turn - own) / (turn - pooled)
            parts.append(
                f"| {policy} | {' | '.join(numbers)} | {mean['straggler'].item():.3f} "
                f"| {-saved.mean():+.1%} [{-saved.max():+.1%}, {-saved.min():+.1%}] "
                f"| {closed.mean():.0%} [{closed.min():.0%}, {closed.max():.0%}] |"
            )
    return "\n".join(parts) + "\n"


def main() -> None:
    """Run all cells and write ``results.csv`` and ``results.md`` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    rows = []
    for workload, profile in itertools.product(WORKLOADS, PROFILES):
        for seed in range(1 if args.quick else 5):
            rows += run_seed(workload, profile, seed)
        print(f"{workload} {profile}: done", flush=True)
    frame = polars.DataFrame(rows)
    frame.write_csv(args.out / "results.csv")
    (args.out / "results.md").write_text(table(frame))
    print(f"lost requests: {frame['lost'].sum()} of all runs; table in {args.out / 'results.md'}")


if __name__ == "__main__":
    main()
