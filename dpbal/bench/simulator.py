"""How many requests and rank-steps a second the simulator does with Python balancers."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from statistics import median

import numpy as np

from dpbal.backends.base import Records
from dpbal.composition import compose
from dpbal.config import Config
from dpbal.experiment import Experiment
from dpbal.progress import Progress
from dpbal.workloads.trace import FOLDER_VARIABLE

LOAD = 0.85
"""Arrivals as a fraction of the rate at which the pooled reference of as many ranks saturates."""

SYNTHETIC_REQUESTS = 20_000
"""Requests of a synthetic workload where none are asked for: about as many as Azure conv has."""

TARGET_RPS = 100_000.0
"""Least requests a second at ``TARGET_RANKS`` ranks, with a Python balancer on one core."""

TARGET_RANKS = 8


@dataclass(frozen=True)
class Case:
    """One thing to run.

    Attributes:
        workload: ``azure_conv`` or ``conv_like``.
        kind: How the ranks step.
        ranks: How many there are.
        balancer: The rule, with its default signal.
        requests: How many; None takes the whole trace, or ``SYNTHETIC_REQUESTS``.
        profile: Step-time constants; None takes those of a default run.
        seed: Of the workload and the balancer.
    """

    workload: str
    kind: str
    ranks: int
    balancer: str
    requests: int | None = None
    profile: str | None = None
    seed: int = 0

    def config(self) -> Config:
        """The run that ``dpbal-run`` would do, without the runs that it compares with.

        Raises:
            ConfigError: For a name that does not exist.
        """
        requests = self.requests
        if requests is None and self.workload != "azure_conv":
            requests = SYNTHETIC_REQUESTS
        overrides = [
            f"workload={self.workload}",
            f"workload.requests={'null' if requests is None else requests}",
            f"workload.load={LOAD}",
            f"group.kind={self.kind}",
            f"group.ranks={self.ranks}",
            f"balancer={self.balancer}",
            f"seed={self.seed}",
            "compare=false",
            "progress=false",
        ]
        if self.profile is not None:
            overrides.append(f"profile={self.profile}")
        return compose(*overrides)


@dataclass(frozen=True)
class Run:
    """What one run took.

    Attributes:
        loop_s: Seconds of the loop over the arrivals, the number that counts.
        setup_s: Seconds of making the parts and the arrays before, and the records after it.
        requests: How many ran.
        rank_steps: Steps, counted for each rank.
        dispatch_share: Share of ``loop_s`` spent in dispatches, their timing included.
        core_share: Share of a core that the run had, below 1 where others wanted it too.
    """

    loop_s: float
    setup_s: float
    requests: int
    rank_steps: int
    dispatch_share: float
    core_share: float


@dataclass(frozen=True)
class Row:
    """What all repeats of one case took; rates are ``(min, median, max)`` over the repeats."""

    workload: str
    kind: str
    ranks: int
    balancer: str
    requests: int
    rank_steps: int
    requests_per_s: tuple[float, float, float]
    rank_steps_per_s: tuple[float, float, float]
    dispatch_share: float
    core_share: float
    setup_s: float
    prepare_s: float
    target_rps: float | None


def default_workload() -> str:
    """The Azure conversation trace where its folder is known, else requests like it."""
    return "azure_conv" if os.environ.get(FOLDER_VARIABLE) else "conv_like"


def cases(
    workload: str,
    kinds: Sequence[str],
    ranks: Sequence[int],
    balancers: Sequence[str],
    requests: Sequence[int | None],
    profile: str | None,
    seed: int,
) -> list[Case]:
    """Every combination."""
    axes = product(kinds, ranks, balancers, requests)
    return [Case(workload, *axis, profile=profile, seed=seed) for axis in axes]


def compile_all(cases: Sequence[Case]) -> float:
    """Compile what the cases will call, or load it from an earlier time; the seconds it took."""
    start_s = time.perf_counter()
    for kind, balancer in sorted({(case.kind, case.balancer) for case in cases}):
        run(Experiment(Case("conv_like", kind, 2, balancer, requests=50).config()))
    return time.perf_counter() - start_s


def run(experiment: Experiment) -> Run:
    """Run once."""
    return run_and_keep(experiment)[0]


def run_and_keep(experiment: Experiment) -> tuple[Run, Records]:
    """Run once, and return what happened as well."""
    gc.collect()
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    records = experiment.run(Progress(enabled=False))
    whole_s = time.perf_counter() - start_s
    cpu_s = time.process_time() - start_cpu_s
    took = Run(
        loop_s=records.wall_s,
        setup_s=whole_s - records.wall_s,
        requests=len(records.requests),
        rank_steps=len(records.steps),
        dispatch_share=float(records.decision_ns.sum()) / 1e9 / records.wall_s,
        core_share=min(1.0, cpu_s / whole_s),
    )
    return took, records


def measure(cases: Sequence[Case], repeats: int, seed: int) -> list[Row]:
    """Run every case ``repeats`` times, taking turns in shuffled order, so that noise hits all."""
    experiments = []
    prepare_s = []
    for case in cases:
        start_s = time.perf_counter()
        experiments.append(Experiment(case.config()))
        prepare_s.append(time.perf_counter() - start_s)
    runs: list[list[Run]] = [[] for _ in cases]
    order = list(range(len(cases)))
    random = Random(seed)
    for _ in range(repeats):
        random.shuffle(order)
        for k in order:
            runs[k].append(run(experiments[k]))
    return [_row(*of_case) for of_case in zip(cases, runs, prepare_s, strict=True)]


def _row(case: Case, runs: Sequence[Run], prepare_s: float) -> Row:
    first = runs[0]
    return Row(
        workload=case.workload,
        kind=case.kind,
        ranks=case.ranks,
        balancer=case.balancer,
        requests=first.requests,
        rank_steps=first.rank_steps,
        requests_per_s=spread([first.requests / run.loop_s for run in runs]),
        rank_steps_per_s=spread([first.rank_steps / run.loop_s for run in runs]),
        dispatch_share=median(run.dispatch_share for run in runs),
        core_share=median(run.core_share for run in runs),
        setup_s=median(run.setup_s for run in runs),
        prepare_s=prepare_s,
        target_rps=TARGET_RPS if case.ranks == TARGET_RANKS else None,
    )


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Minimum, median and maximum."""
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0]).tolist()
    return low, middle, high
