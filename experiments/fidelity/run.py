"""The simulator beside real vLLM engines: the same requests, policies and step times.

    DPBAL_TRACES=... python experiments/fidelity/run.py           # all; 70 minutes, 2 cores
    DPBAL_TRACES=... python experiments/fidelity/run.py --quick   # one cell

Cells run in random order. Each goes into runs.csv as it ends, and what is there is not run again;
the table in results.md is made of it. Nothing of the simulator was fitted to the engines.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars
from scipy import stats

from dpbal.backends.base import Outcome, Records
from dpbal.composition import compose
from dpbal.experiment import Experiment
from dpbal.metrics import summarise
from dpbal.progress import Progress

POLICIES = {
    # on real engines, in the simulator
    "round_robin": (["balancer=round_robin"], ["balancer=round_robin"]),
    "vllm_native": (["balancer=vllm_native"], ["preset=vllm_0_32"]),
    "minimum_tokens": (["balancer=minimum_tokens"], ["balancer=minimum_tokens"]),
    "least_prefill": (["balancer=least_prefill"], ["balancer=least_prefill"]),
}
SEEDS = (0, 1, 2)
FIRST, LAST = 0.2, 0.9
"""Requests between these parts of the arrivals are measured, and the steps of that time."""

METRICS = {
    "TTFT s": ("ttft_s", "mean", 1.0),
    "TPOT ms": ("tpot_s", "mean", 1e3),
    "E2E s": ("e2e_s", "mean", 1.0),
    "straggler %": ("straggler_share", None, 100.0),
}


class Case(NamedTuple):
    """What all policies and seeds of a cell share.

    Attributes:
        overrides: Of the workload and the group; ``{seed}`` stands for the seed.
        dilation: Of the real engines.
    """

    overrides: tuple[str, ...]
    dilation: float


SHORT = "{min_tokens:8,max_tokens:120,parts:[{share:1.0,mean_tokens:36,sigma:0.5}]}"
"""Output lengths in lockstep: with those of the trace, five mean latencies would take an hour."""

CODE = (
    "group.kind=independent",
    "profile=llama31_8b_h200",
    "workload=azure_code",
    "workload.windows=3",
    "workload.window={seed}",
)
CHAT = ("workload=conv_like", f"workload.output={SHORT}", "seed={seed}")

CASES = {
    ("independent", 0.5): Case((*CODE, "workload.requests=900"), 2.0),
    ("independent", 0.85): Case((*CODE, "workload.requests=1200"), 2.0),
    ("lockstep", 0.5): Case((*CHAT, "workload.requests=450"), 1.0),
    ("lockstep", 0.85): Case((*CHAT, "workload.requests=1300"), 1.0),
}


def run_cell(kind: str, load: float, policy: str, seed: int) -> list[dict[str, Any]]:
    """Real engines and the simulator on one set of requests."""
    case = CASES[kind, load]
    shared = [line.replace("{seed}", str(seed)) for line in case.overrides]
    shared.append(f"workload.load={load}")
    real, simulated = POLICIES[policy]
    backends = {
        "engines": ["backend=vllm", f"backend.dilation={case.dilation}", *real],
        "simulator": ["transport=shm", *simulated],
    }
    rows = []
    for backend, lines in backends.items():
        experiment = Experiment(compose(*shared, *lines))
        records = experiment.run(Progress(enabled=False))
        row = {"kind": kind, "load": load, "policy": policy, "seed": seed, "backend": backend}
        rows.append({**row, **measure(records, experiment)})
    return rows


def measure(records: Records, experiment: Experiment) -> dict[str, Any]:
    """The metrics of the steady part of a run."""
    rows = records.requests
    lost = int((rows["outcome"] != Outcome.finished).sum())
    from_s, to_s = np.quantile(rows["arrival_s"], [FIRST, LAST])
    e2e_s = float((rows["finish_s"] - rows["arrival_s"]).mean())
    steps = records.steps
    steady = replace(
        records,
        requests=rows[(rows["arrival_s"] >= from_s) & (rows["arrival_s"] < to_s)],
        steps=steps[(steps["start_s"] >= from_s) & (steps["start_s"] < to_s)],
    )
    if records.kind.name == "lockstep":  # steps of all ranks or of none
        numbers = np.unique(steady.steps["end_s"], return_counts=True)
        whole = numbers[0][numbers[1] == records.ranks]
        kept = steady.steps[np.isin(steady.steps["end_s"], whole)]
        steady = replace(steady, steps=kept)
    summary = summarise(steady, experiment.config.slo)
    values = {}
    for name, (key, statistic, scale) in METRICS.items():
        value: Any = summary[key]
        values[name] = scale * (value if statistic is None else value[statistic])
    emulation = records.emulation
    return {
        **values,
        "lost": lost,
        "arrivals per E2E": float(rows["arrival_s"][-1]) / e2e_s,
        "late share": None if emulation is None else emulation.late_share,
        "machine load": os.getloadavg()[0],
        "decode steps": int((steps["decode_seqs"] > 0).sum()),
        "prefill tokens": int(steps["prefill_tokens"].sum()),
    }


def table(runs: polars.DataFrame) -> str:
    """Markdown: for each cell both means, and the mean difference with a 95 % t interval."""
    lines = []
    for (kind, load), cell in runs.group_by(["kind", "load"], maintain_order=True):
        case = CASES[str(kind), float(load)]  # type: ignore[arg-type]
        late = cell["late share"].max()
        lost = cell["lost"].sum()
        per = cell["arrivals per E2E"].min()
        lines.append(
            f"\n**{kind}, load {load}**, dilation {case.dilation:g}, {lost} requests lost, at most "
            f"{late:.1%} of steps late, arrivals over at least {per:.1f} mean E2E\n"
        )
        names = [name for name in METRICS if kind == "lockstep" or name != "straggler %"]
        lines.append("| policy | " + " | ".join(names) + " |")
        lines.append("|---" * (1 + len(names)) + "|")
        for (policy,), rows in cell.group_by(["policy"], maintain_order=True):
            cells = [_difference(rows.sort("seed"), name) for name in names]
            lines.append(f"| {policy} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _difference(rows: polars.DataFrame, name: str) -> str:
    real = rows.filter(polars.col("backend") == "engines")[name].to_numpy()
    simulated = rows.filter(polars.col("backend") == "simulator")[name].to_numpy()
    digits = 3 if name == "TTFT s" else 1 if name != "E2E s" else 2
    relative = real / simulated - 1
    half = 0.0
    if len(relative) > 1:
        half = float(stats.t.ppf(0.975, len(relative) - 1) * stats.sem(relative))
    values = f"{real.mean():.{digits}f} / {simulated.mean():.{digits}f}"
    return f"{values} ({relative.mean():+.1%} ± {half:.1%})"


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one cell only")
    quick = parser.parse_args().quick
    folder = Path(__file__).parent
    cells = list(itertools.product(CASES, POLICIES, SEEDS))
    random.Random(0).shuffle(cells)
    cells.sort(key=lambda cell: cell[0][0])  # what the host finds easier first
    path = folder / ("quick.csv" if quick else "runs.csv")
    runs = polars.read_csv(path) if path.exists() else polars.DataFrame()
    for (kind, load), policy, seed in cells[:1] if quick else cells:
        done = (
            not runs.is_empty()
            and not runs.filter(
                (polars.col("kind") == kind)
                & (polars.col("load") == load)
                & (polars.col("policy") == policy)
                & (polars.col("seed") == seed)
            ).is_empty()
        )
        if done:
            continue
        rows = polars.DataFrame(run_cell(kind, load, policy, seed))
        print(rows, flush=True)
        runs = polars.concat([runs, rows], how="diagonal_relaxed")
        runs.write_csv(path)
    order = {name: k for k, name in enumerate(POLICIES)}
    runs = runs.with_columns(order=polars.col("policy").replace_strict(order))
    text = table(runs.sort("kind", "load", "order", "seed"))
    print(text)
    if not quick:
        (folder / "results.md").write_text(text.lstrip())


if __name__ == "__main__":
    main()
