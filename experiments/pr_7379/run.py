"""SGLang PR #7379's own comparison: round robin against minimum_tokens, 16 ranks, 4,096 requests.

    DPBAL_TRACES=FOLDER python -m experiments.pr_7379.run
    python -m experiments.pr_7379.figure    # needs dpbal[report]

All policies meet the same requests in every seed or window, and nothing was tuned. In the simulator
a gather costs a step nothing, which is to the PR's advantage.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import polars

from experiments import plans
from experiments.plans import POOLED_TOO, Task, tasks
from experiments.pr_7379.cells import AT_ONCE, POLICIES, SHOWN, Cell
from experiments.pr_7379.tables import text

ALL = {**POLICIES, **POOLED_TOO}
LOADS = ("0.5", "0.7", "0.85", AT_ONCE)


def benchmark() -> Iterator[Task]:
    """The PR's benchmark as far as it is known."""
    return tasks((Cell(load=load) for load in LOADS), ALL)


def elsewhere() -> Iterator[Task]:
    """Other requests, another device, no lockstep."""
    places = (
        ("azure_conv", "lockstep", None),
        ("conv_like", "lockstep", "deepseek_r1_gb200"),
        ("conv_like", "lockstep", "lds_prototype"),
        ("conv_like", "independent", None),
        ("azure_conv", "independent", None),
        ("conv_like", "independent", "i8b_prototype"),
    )
    cells = (
        Cell(workload, kind, load, profile)
        for (workload, kind, profile), load in product(places, LOADS)
    )
    return tasks(cells, ALL)


QUESTIONS = {"benchmark": benchmark, "elsewhere": elsewhere}


def judged(rows: polars.DataFrame) -> polars.DataFrame:
    """The rows; of requests that all arrive at once none is unstable, as the queue only shrinks."""
    is_at_once = polars.col("load") == AT_ONCE
    return rows.with_columns(unstable=polars.col("unstable") & ~is_at_once)


if __name__ == "__main__":
    plans.main(__doc__ or "", Path(__file__).parent, QUESTIONS, text, SHOWN, finished=judged)
