"""How old reports may be: up to 5 s late, or looked at up to 5 s apart; with two ledgers.

    DPBAL_TRACES=FOLDER python -m experiments.staleness.run
    python -m experiments.staleness.figure    # needs dpbal[report]

All rules meet the same requests in every window, and nothing was tuned.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import polars

from experiments import plans
from experiments.held_out import KINDS, draws
from experiments.plans import Policies, Task
from experiments.staleness.cells import POLICIES, TIES, WORKLOAD, Cell
from experiments.staleness.tables import text


def one() -> Iterator[Task]:
    """Every rule, ledger and age, with one front end."""
    return _tasks((1,), POLICIES)


def four() -> Iterator[Task]:
    """The same with four front ends that do not know of each other."""
    return _tasks((4,), POLICIES)


def ties() -> Iterator[Task]:
    """What keeps front ends apart; asked after the first two."""
    return _tasks((1, 4), TIES)


def _tasks(front_ends: tuple[int, ...], policies: Policies) -> Iterator[Task]:
    for kind, count, draw in product(KINDS, front_ends, draws(WORKLOAD)):
        yield Task(Cell(kind, count), draw, policies)


QUESTIONS = {"one": one, "four": four, "ties": ties}


def without_settings(rows: polars.DataFrame) -> polars.DataFrame:
    """The rows; policies are named after their settings."""
    return rows.drop("setting")


if __name__ == "__main__":
    plans.main(__doc__ or "", Path(__file__).parent, QUESTIONS, text, finished=without_settings)
