"""Runs on real engines take minutes each, so that what a file holds is not run again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars

Case = tuple[str, int]
"""A policy, and a window or seed."""


def shuffled(policies: Iterable[str], draws: Iterable[int]) -> list[Case]:
    """All policies of each draw, in an order of its own."""
    cases = []
    for draw in draws:
        order = list(policies)
        random.Random(draw).shuffle(order)
        cases += [(policy, draw) for policy in order]
    return cases


def complete(
    file: Path,
    columns: tuple[str, str],
    cases: Iterable[Case],
    run: Callable[[str, int], list[dict[str, Any]]],
) -> polars.DataFrame:
    """Run the cases that a CSV lacks, and write it after each.

    Args:
        file: The CSV.
        columns: What a policy and a draw are called there.
        cases: In the order in which they run.
        run: Gives the rows of one.
    """
    runs = polars.read_csv(file) if file.exists() else polars.DataFrame()
    done = set() if runs.is_empty() else set(runs.select(columns).rows())
    for case in cases:
        if case in done:
            continue
        rows = polars.DataFrame(run(*case), infer_schema_length=None)
        runs = polars.concat([runs, rows], how="diagonal_relaxed")
        runs.write_csv(file)
        print(f"{columns[1]} {case[1]}, {case[0]}: done", flush=True)
    return runs
