"""How old reports may be: each up to 5 s late, or looked at only every 5 s, and two ledgers.

    DPBAL_TRACES=FOLDER python -m experiments.staleness.run
    python -m experiments.staleness.figure    # needs dpbal[report]

All rules meet the same requests in every window, and nothing was tuned.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import polars

from experiments import questions
from experiments.held_out import KINDS, draws
from experiments.plans import Task
from experiments.plans import answer as run_all
from experiments.staleness.cells import POLICIES, TIES, WORKLOAD, Cell
from experiments.staleness.tables import text

QUESTIONS = {"one": (1,), "four": (4,), "ties": (1, 4)}
"""Front ends that do not know of each other; the last was asked after the first two."""


def answer(question: str, pool: ProcessPoolExecutor) -> polars.DataFrame:
    """All rows of a question: every rule, ledger and age in every window; or ways with ties."""
    cells = [Cell(*parts) for parts in product(KINDS, QUESTIONS[question])]
    policies = TIES if question == "ties" else POLICIES
    tasks = [Task(cell, draw, policies) for cell, draw in product(cells, draws(WORKLOAD))]
    return run_all(tasks, pool).drop("setting")


if __name__ == "__main__":
    questions.main(__doc__ or "", Path(__file__).parent, QUESTIONS, answer, text)
