"""Runs a study's plan: which policies meet the requests of which cells and draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import polars

from experiments import questions
from experiments.cells import LATENCIES, Cell, Shown, measure
from experiments.effects import POOLED
from experiments.held_out import draws

SHOWN: Shown = {**LATENCIES, "straggler": ("straggler_share", None, 1.0)}

Policies = Mapping[str, tuple[str, ...] | None]
"""By name the overrides of a configuration, or None for the pooled machine."""

POOLED_TOO: Policies = {POOLED: None}


class NamedCell(Cell, Protocol):
    """A cell whose fields are columns of the rows."""

    def _asdict(self) -> dict[str, Any]: ...


class CellOfWorkload(NamedCell, Protocol):
    """A cell that says what its requests are."""

    @property
    def workload(self) -> str:
        """Its name."""


class Task(NamedTuple):
    """What one process does at a time.

    Attributes:
        cell: What all policies have in common.
        draw: Window of a trace, or seed.
        policies: What meets its requests.
    """

    cell: NamedCell
    draw: int
    policies: Policies


def tasks(
    cells: Iterable[CellOfWorkload], policies: Policies, most: int | None = None
) -> Iterator[Task]:
    """Every cell on every draw of its workload that nothing was tuned on, cell by cell.

    Args:
        cells: What the policies meet.
        policies: The same for all cells.
        most: How many draws of a workload at most, from the first on; None for all.
    """
    for cell in cells:
        for draw in draws(cell.workload)[:most]:
            yield Task(cell, draw, policies)


def main(
    purpose: str,
    folder: Path,
    plans: Mapping[str, Callable[[], Iterable[Task]]],
    text: Callable[[str, polars.DataFrame], str],
    shown: Shown = SHOWN,
    needs_traces: bool = True,
    finished: Callable[[polars.DataFrame], polars.DataFrame] | None = None,
) -> None:
    """The command of a study whose questions are plans; see ``experiments.questions.main``.

    Args:
        purpose: Of the study, for ``--help``.
        folder: Where the files go, unless ``--out`` says otherwise.
        plans: What each question runs, by its name.
        text: Makes Markdown of an answer.
        shown: Columns with metrics.
        needs_traces: Whether a question is asked of a trace.
        finished: Makes the rows that are written of those that ran, where they are others.
    """

    def rows(question: str, pool: ProcessPoolExecutor) -> polars.DataFrame:
        found = answer(plans[question](), pool, shown)
        return finished(found) if finished else found

    questions.main(purpose, folder, plans, rows, text, needs_traces)


def answer(
    tasks: Iterable[Task], pool: ProcessPoolExecutor, shown: Shown = SHOWN
) -> polars.DataFrame:
    """A row for each policy of each task, in their order."""
    results = pool.map(partial(_run, shown=shown), tasks)
    return polars.DataFrame([row for rows in results for row in rows], infer_schema_length=None)


def _run(task: Task, shown: Shown) -> list[dict[str, Any]]:
    rows = []
    for name, lines in task.policies.items():
        columns, metrics = measure(task.cell, task.draw, lines, shown)
        rows.append(
            {
                **task.cell._asdict(),
                "draw": task.draw,
                "policy": name,
                "setting": " ".join(lines or ()),
                **columns,
                "lost": metrics["lost"],
                "unstable": metrics["unstable"],
            }
        )
    return rows
