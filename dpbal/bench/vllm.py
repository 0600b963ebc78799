"""Microseconds that dpbal adds inside vLLM, beside vLLM untouched in the same run."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from dpbal.backends.vllm import backend

if TYPE_CHECKING:
    from dpbal.backends.vllm.costs import Timed

PAUSE_S = 0.005
"""A server does other things between two calls, and its caches are cold."""

BUDGET = "level"

DESCRIPTION = (
    "a scheduler's decode step (schedule and update, no model), a report alone, what the budget "
    f"{BUDGET} of 8 ranks adds (vectors and rule; in the step keeping to them too), and a client's "
    "choice of an engine with new reports of all ranks; hot: one call after the other, cold: with "
    f"{PAUSE_S * 1e3:.0f} ms between calls"
)


@dataclass(frozen=True)
class VllmRow:
    """What one operation took.

    Attributes:
        operation: What was done.
        subject: By whom.
        size: Running requests of a step, ranks of a choice.
        is_cold: Whether there was a pause before each call.
        p50_us: Median over the repeats of each repeat's p50.
        p50_us_min: Smallest p50 of a repeat.
        p50_us_max: Largest p50 of a repeat.
        p99_us: Median over the repeats of each repeat's p99.
    """

    operation: str
    subject: str
    size: int
    is_cold: bool
    p50_us: float
    p50_us_min: float
    p50_us_max: float
    p99_us: float


def require() -> None:
    """Find out whether vLLM is there.

    Raises:
        MissingExtraError: If it is not.
    """
    backend.require("dpbal-bench vllm")


def measure(
    running: int, ranks: list[int], balancer: str, repeats: int, rounds: int
) -> list[VllmRow]:
    """Time untouched vLLM and vLLM with dpbal in turn.

    Raises:
        MissingExtraError: If vLLM is not installed.
    """
    require()
    from dpbal.backends.vllm import budget_costs, costs

    rows: list[VllmRow] = []
    most = (repeats + 1) * rounds
    for pause_s in (0.0, PAUSE_S):
        with costs.steps(running, most) as timed, budget_costs.turns(running, most, BUDGET) as more:
            rows += _rows("step", running, timed | more, repeats, rounds, pause_s)
        for count in ranks:
            with costs.choices(count, balancer) as timed:
                rows += _rows("choice", count, timed, repeats, rounds, pause_s)
    return rows


def _rows(
    operation: str, size: int, timed: dict[str, Timed], repeats: int, rounds: int, pause_s: float
) -> list[VllmRow]:
    from dpbal.backends.vllm.costs import take_turns

    take_turns(timed, rounds, pause_s)  # compile, warm up
    runs = [take_turns(timed, rounds, pause_s) for _ in range(repeats)]
    rows = []
    for subject in timed:
        p50_us = [float(np.median(run[subject])) / 1e3 for run in runs]
        p99_us = median(float(np.quantile(run[subject], 0.99)) / 1e3 for run in runs)
        spread = (median(p50_us), min(p50_us), max(p50_us))
        rows.append(VllmRow(operation, subject, size, pause_s > 0, *spread, p99_us))
    return rows
