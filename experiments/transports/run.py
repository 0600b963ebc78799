"""How good decisions are with reports that are as late as each transport was measured to be.

    DPBAL_TRACES=FOLDER python -m experiments.transports.run

All combinations meet the same requests in every window or seed, and nothing was tuned. Measure the
transports of your own machine first, if you like:

    dpbal-bench transport --ranks 8 --timing experiments/transports/timing
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import polars

from experiments import questions
from experiments.transports.cells import IDEAL, KINDS, MEASURED, PEERS, Cell, Policy, run
from experiments.transports.tables import table

DRAWS = (1, 3, 5, 7, 9)
"""Windows of the trace, apart from each other; or seeds."""

POLICIES = [
    Policy(*parts)
    for parts in product(
        ("minimum_tokens", "least_prefill"),
        ("acknowledge", "overwrite"),
        (IDEAL, *MEASURED, *PEERS),
    )
]

QUESTIONS = {
    "one": [
        Cell(workload, kind, load)
        for workload, load in (("azure_conv", 0.85), ("azure_conv", 0.7), ("reasoning", 0.85))
        for kind in KINDS
    ],
    "four": [Cell(kind=kind, dispatchers=4) for kind in KINDS],
}
"""One front end, and four that do not know of each other."""


def answer(question: str, pool: ProcessPoolExecutor) -> polars.DataFrame:
    """All rows of a question: every combination in every window or seed."""
    jobs = list(product(QUESTIONS[question], DRAWS, POLICIES))
    rows: list[dict[str, Any]] = []
    for (cell, draw, policy), result in zip(
        jobs, pool.map(run, *zip(*jobs, strict=True), chunksize=len(POLICIES)), strict=True
    ):
        rows.append({**cell._asdict(), "draw": draw, **policy._asdict(), **result})
    return polars.DataFrame(rows, infer_schema_length=None)


if __name__ == "__main__":
    questions.main(__doc__ or "", Path(__file__).parent, QUESTIONS, answer, table)
