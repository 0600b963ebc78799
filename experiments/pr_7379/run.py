"""SGLang PR #7379's own comparison: round robin against minimum_tokens, 16 ranks, 4,096 requests.

    DPBAL_TRACES=FOLDER python -m experiments.pr_7379.run
    python -m experiments.pr_7379.figure    # needs dpbal[report]

All policies meet the same requests in every seed or window, and nothing was tuned. In the simulator
a gather costs a step nothing, which is to the PR's advantage.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import polars

from experiments import questions
from experiments.held_out import draws
from experiments.plans import POOLED_TOO, Task
from experiments.plans import answer as run_all
from experiments.pr_7379.cells import AT_ONCE, POLICIES, SHOWN, Cell
from experiments.pr_7379.tables import text

LOADS = ("0.5", "0.7", "0.85", AT_ONCE)
QUESTIONS = {
    "benchmark": [Cell(load=load) for load in LOADS],
    "elsewhere": [
        Cell(workload, kind, load, profile)
        for (workload, kind, profile), load in product(
            (
                ("azure_conv", "lockstep", None),
                ("conv_like", "lockstep", "deepseek_r1_gb200"),
                ("conv_like", "lockstep", "lds_prototype"),
                ("conv_like", "independent", None),
                ("azure_conv", "independent", None),
                ("conv_like", "independent", "i8b_prototype"),
            ),
            LOADS,
        )
    ],
}
"""The PR's benchmark as far as it is known; and other requests, another device, no lockstep."""


def answer(question: str, pool: ProcessPoolExecutor) -> polars.DataFrame:
    """All rows of a question: every policy and the pooled machine in every seed or window."""
    policies = {**POLICIES, **POOLED_TOO}
    tasks = [
        Task(cell, draw, policies) for cell in QUESTIONS[question] for draw in draws(cell.workload)
    ]
    rows = run_all(tasks, pool, SHOWN)
    # of requests that all arrive at once the queue only shrinks, whatever the policy
    is_at_once = polars.col("load") == AT_ONCE
    return rows.with_columns(unstable=polars.col("unstable") & ~is_at_once)


if __name__ == "__main__":
    questions.main(__doc__ or "", Path(__file__).parent, QUESTIONS, answer, text)
