"""What dpbal costs a server, as tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars

from experiments.serve.tables import markdown, mean_of

COSTS = {
    "requests_per_s": ("requests/s", 1),
    "ttft_mean_ms": ("TTFT mean, ms", 2),
    "ttft_p50_ms": ("TTFT p50, ms", 2),
    "ttft_p99_ms": ("TTFT p99, ms", 2),
    "e2e_mean_ms": ("E2E mean, ms", 2),
    "front_cpu_ms": ("front end's processor, ms a request", 3),
    "cpu_ms": ("all processes', ms a request", 3),
}
LABELS = {"": "emulated GPUs", "_cpu": "vLLM's CPU executor, a tiny model"}
PLAIN = "vllm"


def section(folder: Path) -> str:
    """What dpbal adds, on emulated GPUs and on the real executor."""
    text = ""
    for suffix, label in LABELS.items():
        file = folder / f"overhead{suffix}.csv"
        if file.exists():
            text += f"### Overhead, {label}\n\n" + _overhead(polars.read_csv(file))
            text += "\n" + _idle(polars.read_csv(folder / f"idle{suffix}.csv"))
    return text


def _overhead(runs: polars.DataFrame) -> str:
    arms = [arm for arm in sorted(runs["arm"].unique(), reverse=True) if arm != PLAIN]
    heads = ["loop", "", PLAIN, *(f"{arm}: difference" for arm in arms)]
    heads += [f"{arm}: by rounds" for arm in arms]
    rows = []
    for (kind,), own in runs.group_by(["kind"], maintain_order=True):
        plain = _of(own, PLAIN)
        for name, (title, digits) in COSTS.items():
            paired = [_relative(_of(own, arm), plain, name) for arm in arms]
            cells = [f"{plain[name].mean():.{digits}f}"]
            cells += [f"{mean:+.1%} [{low:+.1%}, {high:+.1%}]" for mean, low, high, *_ in paired]
            cells += [f"{least:+.1%} to {most:+.1%}" for *_, least, most in paired]
            rows.append((kind, title, *cells))
    closed = _of(runs.filter(polars.col("kind") == "closed"), PLAIN)
    others = runs["others_cores"]
    return markdown(heads, rows) + (
        f"\n{len(closed)} pairs of runs in {runs['round'].n_unique()} rounds with servers of their "
        f"own, {runs['requests'].sum():,} requests, {runs['failed'].sum()} failed; geometric mean "
        "of the ratios of pairs with the 95 % t interval over rounds, and least and greatest mean "
        "of a round. "
        f"{runs['ranks'][0]} ranks, one API server; open loop at {runs['rate'][0]:.0f} requests/s. "
        f"The front end of {PLAIN} took {closed['front_cores'].mean():.2f} cores in the closed "
        f"loop. Others on the machine took {others.min():.2f} to {others.max():.2f} cores, "
        f"{others.mean():.2f} on average.\n"
    )


def _of(runs: polars.DataFrame, arm: str) -> polars.DataFrame:
    return runs.filter(polars.col("arm") == arm).sort("round", "visit")


def _relative(own: polars.DataFrame, plain: polars.DataFrame, name: str) -> tuple[float, ...]:
    """Geometric mean of the pairs' ratios, its interval, and the least and greatest of a round.

    Pairs of a round meet the same processes, so that rounds, not pairs, are the sample.
    """
    each = np.log((own[name] / plain[name]).to_numpy())
    numbers = own["round"].to_numpy()
    by_round = [each[numbers == number].mean() for number in np.unique(numbers)]
    mean, half = mean_of(np.array(by_round))
    found = (mean, mean - half, mean + half, min(by_round), max(by_round))
    return tuple(float(np.expm1(value)) for value in found)


def _idle(rests: polars.DataFrame) -> str:
    heads = ("idle server", "% of a core", f"more than {PLAIN}", "of it front end", "engines")
    plain = rests.filter(polars.col("arm") == PLAIN).sort("round")
    rows = []
    for (arm,), own in rests.group_by(["arm"], maintain_order=True):
        values = own.sort("round")["core_percent"].to_numpy()
        mean, half = mean_of(values - plain["core_percent"].to_numpy())
        cells = (
            f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})",
            "" if arm == PLAIN else f"{mean:+.2f} ± {half:.2f}",
            f"{own['front_percent'].mean():.2f}",
            f"{own['engines_percent'].mean():.2f}",
        )
        rows.append((arm, *cells))
    others = rests["others_cores"]
    return markdown(heads, rows) + (
        f"\n{len(plain)} rests of {rests['seconds'].mean():.0f} s, all servers at once; others on "
        f"the machine took {others.min():.2f} to {others.max():.2f} cores.\n"
    )
