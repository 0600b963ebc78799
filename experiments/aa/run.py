"""A/A: the same policy on other seeds, compared 200 times, must rarely be called a difference.

    python experiments/aa/run.py              # 200 trials of each policy; the table in results.md
    python experiments/aa/run.py --trials 20  # a quick look

Each trial runs a policy on two sets of seeds that no other trial uses, leaves real run directories,
and hands them to ``dpbal.comparison`` as the command does. The sides met other requests, so their
intervals are Welch's. A trial is called a difference if any metric gets a verdict.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from scipy.stats import binomtest

from dpbal.comparison.comparison import compare
from dpbal.comparison.effects import Method, Verdict
from dpbal.comparison.metrics import DEFAULT, METRICS
from dpbal.composition import compose
from dpbal.config import Config
from dpbal.experiment import Experiment
from dpbal.progress import Progress
from dpbal.results import summarise

POLICIES = {
    "random": ["balancer=random"],
    "least_prefill, independent": [
        "balancer=least_prefill",
        "group.kind=independent",
        "profile=i8b_prototype",
    ],
}
LEVEL = 0.95


@dataclass
class Calls:
    """How many trials of a policy were called a difference.

    Attributes:
        trials: Of how many.
        corrected: With any verdict after Holm's correction over the metrics.
        single: For each metric, with a verdict without correction.
    """

    trials: int
    corrected: int = 0
    single: Counter[str] = field(default_factory=Counter)


def run_side(folder: Path, config: Config, first: int, seeds: int) -> Path:
    """Real runs of one policy on consecutive seeds, as a multirun directory."""
    for seed in range(first, first + seeds):
        seeded = replace(config, seed=seed)
        experiment = Experiment(seeded)
        records = experiment.run(Progress(enabled=False))
        summary = summarise(seeded, {}, experiment.requests, records, None, None)
        (folder / str(seed)).mkdir(parents=True)
        (folder / str(seed) / "result.json").write_text(json.dumps(summary))
    return folder


def trial(folder: Path, config: Config, first: int, seeds: int, calls: Calls) -> None:
    """One comparison of a policy with itself."""
    sides = [
        run_side(folder / side, config, first + i * seeds, seeds) for i, side in enumerate("ab")
    ]
    for correct in ("holm", "none"):
        (table,) = compare(sides, level=LEVEL, correct=correct, by="argument").tables
        (effects,) = [one.effects for one in table.others]
        if {effect.method for effect in effects} != {Method.welch}:
            raise ValueError("the sides met the same requests, so this is no A/A trial")
        called = [e.metric.name for e in effects if e.verdict is not Verdict.no_difference]
        if correct == "none":
            calls.single.update(called)
        else:
            calls.corrected += bool(called)


def report(results: dict[str, Calls], seeds: int, requests: int) -> str:
    """Markdown: how often each policy was called different from itself."""
    heads = ["trials with any verdict (Holm)", *(METRICS[name].label for name in DEFAULT)]
    lines = [
        f"{seeds} seeds against {seeds} others of one policy, {requests} requests a run, level "
        f"{LEVEL}. In brackets the 95 % interval of the share; the columns of single metrics are "
        "without correction.",
        "",
        f"| policy | trials | {' | '.join(heads)} |",
        "|---" * (len(heads) + 2) + "|",
    ]
    for policy, calls in results.items():
        shares = [calls.corrected, *(calls.single[name] for name in DEFAULT)]
        cells = [_share(count, calls.trials) for count in shares]
        lines.append(f"| {policy} | {calls.trials} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _share(count: int, trials: int) -> str:
    low, high = binomtest(count, trials).proportion_ci()
    return f"{count}: {count / trials:.1%} [{low:.1%}, {high:.1%}]"


def main() -> None:
    """Run all trials and write ``results.md`` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    results: dict[str, Calls] = {}
    for policy, overrides in POLICIES.items():
        config = compose(*overrides, f"workload.requests={args.requests}", "compare=false")
        calls = results[policy] = Calls(args.trials)
        started = time.perf_counter()
        for number in range(args.trials):
            with tempfile.TemporaryDirectory() as folder:
                first = number * 2 * args.seeds
                trial(Path(folder), config, first, args.seeds, calls)
        wall_s = time.perf_counter() - started
        print(f"{policy}: {calls.corrected} of {calls.trials} called, {wall_s:.0f} s", flush=True)
    text = report(results, args.seeds, args.requests)
    (args.out / "results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
