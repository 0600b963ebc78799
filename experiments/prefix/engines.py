"""The rules on real vLLM engines with their own prefix caches, beside what the simulator predicts.

    DPBAL_TRACES=FOLDER python -m experiments.prefix.engines   # half an hour, 2 cores for it alone

Lockstep, eight ranks, 85 % load, the default profile, the level budget, the first requests of a
window of the Mooncake trace that nothing was tuned on. Rules run in random order on the same
requests. Each run goes into engines.csv as it ends, and what is there is not run again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars

from dpbal.backends.base import Outcome
from dpbal.composition import compose
from dpbal.experiment import Experiment
from dpbal.metrics import summarise
from dpbal.progress import Progress
from experiments.engine_runs import complete, shuffled
from experiments.prefix.cells import TRACE, Cell

REQUESTS = 500
DILATION = 0.5
RULES = {
    # on real engines, in the simulator
    "vllm_native": ("balancer=vllm_native", "preset=vllm_0_32"),
    "least_prefill": ("balancer=least_prefill",) * 2,
    "cache_aware": ("balancer=cache_aware",) * 2,
    "llm_d": ("balancer=llm_d",) * 2,
    "marginal_prefill": ("balancer=marginal_prefill",) * 2,
}
WINDOWS = (2,)
SHOWN = ("E2E s", "TTFT s", "TPOT ms", "hits %")


def run_rule(rule: str, window: int) -> list[dict[str, Any]]:
    """Real engines and the simulator on one set of requests."""
    shared = [*Cell(kind="fitted").lines(window), f"workload.requests={REQUESTS}"]
    real, simulated = RULES[rule]
    backends = {
        "engines": ["backend=vllm", "transport=shm", f"backend.dilation={DILATION}", real],
        "simulator": [simulated, "budget=level"],
    }
    rows = []
    for backend, lines in backends.items():
        experiment = Experiment(compose(*shared, *lines))
        machine_load = os.getloadavg()[0]
        records = experiment.run(Progress(enabled=False))
        metrics: dict[str, Any] = dict(summarise(records, experiment.config.slo))
        emulation = records.emulation
        rows.append(
            {
                "rule": rule,
                "window": window,
                "backend": backend,
                "E2E s": metrics["e2e_s"]["mean"],
                "TTFT s": metrics["ttft_s"]["mean"],
                "TPOT ms": 1e3 * metrics["tpot_s"]["mean"],
                "hits %": 100 * metrics["prefix_hit_share"],
                "vLLM's hits %": 100 * emulation.engine_prefix_hit_share if emulation else None,
                "late share": emulation.late_share if emulation else None,
                "lost": int((records.requests["outcome"] != Outcome.finished).sum()),
                "machine load": machine_load,
            }
        )
    return rows


def table(runs: polars.DataFrame) -> str:
    """Markdown: means of both over the windows, and the order in each window."""
    lines = [
        "### On real engines\n",
        f"| rule | {' | '.join(f'{m} engines / simulator' for m in SHOWN)} | vLLM's hits % |",
        "|---" * (len(SHOWN) + 2) + "|",
    ]
    for rule in RULES:
        both = {
            name: runs.filter((polars.col("rule") == rule) & (polars.col("backend") == name))
            for name in ("engines", "simulator")
        }
        cells = [
            " / ".join(f"{np.array(own[metric]).mean():.3g}" for own in both.values())
            for metric in SHOWN
        ]
        counted = np.array(both["engines"]["vLLM's hits %"]).mean()
        lines.append(f"| {rule} | {' | '.join(cells)} | {counted:.3g} |")
    lines.append("\nRules by mean E2E latency, the lowest first:\n")
    for (window,), own in runs.group_by(["window"], maintain_order=True):
        for (backend,), ranked in own.group_by(["backend"], maintain_order=True):
            ordered = ranked.sort("E2E s")
            order = ", ".join(
                f"{rule} {value:.3g} s" for rule, value in ordered.select("rule", "E2E s").rows()
            )
            lines.append(f"* window {window}, {backend}: {order}")
    load = runs["machine load"]
    lines.append(
        f"\nRequests lost: {runs['lost'].sum()}; at most {runs['late share'].max():.2%} of the "
        f"steps came late; machine load {load.min():.1f} to {load.max():.1f}."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is not in engines.csv yet, and write engines.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    if "DPBAL_TRACES" not in os.environ:
        parser.error(f"set DPBAL_TRACES to the folder that holds {TRACE}.jsonl")
    cases = shuffled(RULES, WINDOWS)
    runs = complete(args.out / "engines.csv", ("rule", "window"), cases, run_rule)
    (args.out / "engines.md").write_text(table(runs))


if __name__ == "__main__":
    main()
