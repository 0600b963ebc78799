"""The level budget with a profile that is wrong: what that costs, and what learning brings back.

    DPBAL_TRACES=... python experiments/learning/run.py            # the table in results.md
    DPBAL_TRACES=... python experiments/learning/run.py --quick    # one set of requests

The simulated machine is slower or faster than the profile says (``backend.true_cost``). Beside a
wrong profile, with and without ``budget.learns``, stands the right one on the same machine, with
the same requests at the same times.
"""

from __future__ import annotations

import argparse
import itertools
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars

from dpbal.budgets import Level, Limits
from dpbal.composition import compose
from dpbal.experiment import Experiment, build_parts
from dpbal.metrics import is_unstable, summarise

FIXED = ("fixed_s", "common_fixed_s")
PREFILL = ("prefill_s_per_token", "attention_s_per_pair")
DECODE = ("decode_s_per_seq", "kv_s_per_token")
TOKENS = ("common_s_per_token",)
PARTS = {"fixed": FIXED, "prefill": PREFILL, "decode": DECODE, "tokens": TOKENS}
"""Constants that one factor stands for, in the order of ``Level.factors``."""

ALL = (*FIXED, *PREFILL, *DECODE, *TOKENS)
WRONG: dict[str, tuple[tuple[str, ...], float]] = {
    "right": ((), 1.0),
    **{f"all x{factor:g}": (ALL, factor) for factor in (0.25, 0.5, 2.0, 4.0)},
    **{f"prefill x{factor:g}": (PREFILL, factor) for factor in (0.25, 4.0)},
    **{f"decode x{factor:g}": (DECODE, factor) for factor in (0.25, 4.0)},
}
WORKLOADS = {
    "azure_conv": ["workload=azure_conv", "workload.windows=4", "workload.window={}"],
    "reasoning": ["workload=reasoning", "seed={}"],
}
PROFILES = ("lds_prototype", "deepseek_v3_h200")
RULES = {
    "known": "budget.learns=false",  # with the right profile
    "believed": "budget.learns=false",
    "learnt": "budget.learns=true",
}
EARLY_S = 60.0
NEAR = 0.1


@dataclass
class Watched(Level):
    """The level budget, with the factors of all steps."""

    seen: list[np.ndarray] = field(default_factory=list)

    def limits(self, step: int, vectors: np.ndarray) -> Limits:
        """Limits, as ever."""
        limits = super().limits(step, vectors)
        self.seen.append(self.factors[: len(PARTS)].copy())
        return limits


def steps_until_near(seen: np.ndarray, names: tuple[str, ...], factor: float) -> dict[str, int]:
    """For each part the steps after which its factor was never again further off than ``NEAR``."""
    counts = {}
    for column, (part, constants) in enumerate(PARTS.items()):
        right = factor if constants[0] in names else 1.0
        off = np.abs(seen[:, column] / right - 1) > NEAR
        counts[f"near {part}"] = int(off.nonzero()[0].max() + 1) if off.any() else 0
    return counts


def run(workload: str, profile: str, number: int, wrong: str, rule: str) -> dict[str, Any]:
    """One rule on one set of requests, on a machine that the profile is so wrong about."""
    names, factor = WRONG[wrong]
    config = compose(
        *(line.format(number) for line in WORKLOADS[workload]),
        "workload.load=0.85",
        f"profile={profile}",
        "balancer=least_prefill",
        "budget=level",
        RULES[rule],
    )
    if rule == "known":
        config.profile.update({name: config.profile[name] * factor for name in names})
    else:
        config.backend["true_cost"] = dict.fromkeys(names, factor)
    experiment = Experiment(config)
    budget = Watched(**{key: value for key, value in config.budget.items() if key != "name"})
    parts = replace(build_parts(config), budget=budget)
    records = experiment.backend.run(experiment.requests, parts)
    metrics: dict[str, Any] = dict(summarise(records, config.slo))
    rows = records.requests
    ttft_s = rows["first_token_s"] - rows["arrival_s"]
    row = {
        "workload": workload,
        "profile": profile,
        "number": number,
        "wrong": wrong,
        "rule": rule,
        "TTFT s": metrics["ttft_s"]["mean"],
        "TTFT p99 s": metrics["ttft_s"]["p99"],
        "early TTFT s": float(ttft_s[rows["arrival_s"] < EARLY_S].mean()),
        "TPOT ms": metrics["tpot_s"]["mean"] * 1e3,
        "E2E s": metrics["e2e_s"]["mean"],
        "lost": metrics["requests"]["offered"] - metrics["requests"]["finished"],
        "unstable": is_unstable(records),
        "steps": len(budget.seen),
    }
    seen = np.array(budget.seen)
    near = steps_until_near(seen, names, factor) if rule == "learnt" else {}
    return row | {f"near {part}": near.get(f"near {part}") for part in PARTS}


def table(rows: polars.DataFrame) -> str:
    """Markdown: a table a workload and profile; means over the sets of requests."""
    shown = {"E2E s": "E2E", "TTFT s": "TTFT", "TTFT p99 s": "p99", "early TTFT s": "first 60 s"}
    lines = []
    for (workload, profile), cell in rows.group_by(["workload", "profile"], maintain_order=True):
        lines.append(f"\n**{workload}, {profile}, load 0.85**\n")
        heads = [f"{head}, s" for head in shown.values()]
        near = ", ".join(PARTS)
        lines.append(f"| the machine is | {' | '.join(heads)} | steps to 10 %: {near} |")
        lines.append("|---|" + "---|" * (len(heads) + 1))
        for (wrong,), runs in cell.group_by(["wrong"], maintain_order=True):
            of = {rule: runs.filter(polars.col("rule") == rule).sort("number") for rule in RULES}
            cells = []
            for name in shown:
                known = of["known"][name].to_numpy()
                off = [of[rule][name].to_numpy() / known - 1 for rule in ("believed", "learnt")]
                cells.append(f"{known.mean():.3g}; {off[0].mean():+.1%}; {off[1].mean():+.1%}")
            counts = [f"{of['learnt'][f'near {part}'].to_numpy().mean():.0f}" for part in PARTS]
            lines.append(f"| {wrong} | {' | '.join(cells)} | {', '.join(counts)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all cells and write ``results.csv`` and ``results.md`` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one set of requests a workload")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    if "DPBAL_TRACES" not in os.environ:
        parser.error("set DPBAL_TRACES to the folder that holds the traces")
    numbers = (0,) if args.quick else (0, 1)
    rows = []
    for workload, profile in itertools.product(WORKLOADS, PROFILES):
        for cell in itertools.product(numbers, WRONG, RULES):
            rows.append(run(workload, profile, *cell))
        print(f"{workload} {profile}: done", flush=True)
    frame = polars.DataFrame(rows)
    frame.write_csv(args.out / "results.csv")
    note = (
        "In each cell: with the right profile; what a wrong one changes where it is believed; and "
        "where its constants are learnt. Means over two windows or seeds, of paired changes. "
        "Steps after which a factor stayed within 10 %.\n"
    )
    (args.out / "results.md").write_text(note + table(frame))
    lost, unstable = frame["lost"].sum(), frame["unstable"].sum()
    print(f"lost requests: {lost}, unstable runs: {unstable}; table in {args.out / 'results.md'}")


if __name__ == "__main__":
    main()
