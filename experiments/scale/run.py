"""What placement and the level budget gain as a group grows from 2 to 256 ranks.

    python -m experiments.scale.run
    python -m experiments.scale.figure

All policies meet the same requests, each rank as many of them in a small group as in a large one,
and nothing was tuned.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import polars

from experiments import plans
from experiments.effects import POOLED
from experiments.grids import changes, grid, means, shares
from experiments.held_out import SEEDS
from experiments.plans import POOLED_TOO, Policies, Task

RANKS = (2, 4, 8, 16, 32, 64, 128, 256)
DRAWS = SEEDS[:5]
ALONE_PER_S = 0.02
"""So few requests that each finds an empty group."""

KINDS = {
    "lockstep": ("group.kind=lockstep", "profile=lds_prototype"),
    "independent": ("group.kind=independent", "profile=i8b_prototype"),
}
BASE = "round_robin"
LEVEL = "least_prefill + level"
BALANCERS: Policies = {
    BASE: ("balancer=round_robin",),
    "fewest_requests": ("balancer=fewest_requests",),
    "minimum_tokens": ("balancer=minimum_tokens",),
    "vllm_0_32": ("preset=vllm_0_32",),
    "power_of_two": ("balancer=power_of_two",),
    "least_prefill": ("balancer=least_prefill",),
}
LEVELLED: Policies = {LEVEL: ("balancer=least_prefill", "budget=level")}
ALONE = "alone"


class Cell(NamedTuple):
    """What all policies have in common.

    Attributes:
        kind: One of ``KINDS``.
        ranks: Of the group.
        load: Of the pooled machine; None for ``ALONE_PER_S``.
        requests: For each rank.
        workload: Its name.
    """

    kind: str
    ranks: int
    load: float | None = 0.85
    requests: int = 300
    workload: str = "conv_like"

    def lines(self, draw: int) -> tuple[str, ...]:
        """The configuration of a seed."""
        rate = f"workload.load={self.load}" if self.load else f"workload.rate={ALONE_PER_S}"
        return (
            f"workload={self.workload}",
            *(() if self.load else ("workload.load=null",)),
            rate,
            f"workload.requests={self.requests * self.ranks}",
            f"group.ranks={self.ranks}",
            f"seed={draw}",
            *KINDS[self.kind],
        )


def _policies(kind: str) -> Policies:
    return {**BALANCERS, **(LEVELLED if kind == "lockstep" else {}), **POOLED_TOO}


def ranks() -> Iterator[Task]:
    """Groups of all sizes, and some of them at a lower load."""
    for kind, size, draw in product(KINDS, RANKS, DRAWS):
        yield Task(Cell(kind, size), draw, _policies(kind))
    for size, draw in product(RANKS[::2], DRAWS):
        yield Task(Cell("lockstep", size, 0.7), draw, _policies("lockstep"))


def reasoning() -> Iterator[Task]:
    """Long outputs, and some prompts that are long: few sizes, fewer requests."""
    for size, draw in product((2, 8, 32), DRAWS):
        cell = Cell("lockstep", size, requests=200, workload="reasoning")
        yield Task(cell, draw, _policies("lockstep"))


def length() -> Iterator[Task]:
    """How much the numbers depend on how long a run is."""
    few: Policies = {
        **{name: BALANCERS[name] for name in (BASE, "least_prefill")},
        **LEVELLED,
        **POOLED_TOO,
    }
    for load, requests, draw in product((0.85, 0.7), (125, 250, 500, 1000, 2000), DRAWS):
        yield Task(Cell("lockstep", 16, load, requests), draw, few)


def alone() -> Iterator[Task]:
    """The time to the first token of requests that have the group to themselves."""
    policies: Policies = {ALONE: BALANCERS[BASE], POOLED: None}
    for kind, size, draw in product(KINDS, (2, 16, 256), DRAWS):
        yield Task(Cell(kind, size, None, 256 // size), draw, policies)


QUESTIONS = {"ranks": ranks, "reasoning": reasoning, "length": length, "alone": alone}


def text(question: str, rows: polars.DataFrame) -> str:
    """The tables of a question."""
    return "\n".join(
        {
            "ranks": lambda: _of_ranks(rows, "### `conv_like`"),
            "reasoning": lambda: _of_ranks(rows, "### `reasoning`"),
            "length": lambda: _of_length(rows),
            "alone": lambda: _of_alone(rows),
        }[question]()
    )


def _of_ranks(rows: polars.DataFrame, title: str) -> list[str]:
    lines = [f"{title}\n"]
    for (kind, load), cell in rows.group_by(["kind", "load"], maintain_order=True):
        metrics = ("TTFT s", "TTFT p99 s", "E2E s") if load == 0.85 else ("E2E s",)
        for metric in metrics:
            lines.append(f"**{kind}, load {load}: {metric}**, change against `{BASE}`\n")
            lines += grid(cell, "ranks", "policy", "policy", BASE, changes(metric))
        if kind == "lockstep":
            pooled = cell.filter(polars.col("policy") == POOLED)
            others = cell.filter(polars.col("policy") != POOLED)
            lines.append(f"**{kind}, load {load}: share of the gap closed, E2E**\n")
            closed = shares("E2E s", pooled, ("ranks",))
            lines += grid(others, "ranks", "policy", "policy", BASE, closed)
            lines.append(f"**{kind}, load {load}: straggler share**\n")
            lines += grid(others, "ranks", "policy", "policy", None, means("straggler"))
    return lines


def _of_length(rows: polars.DataFrame) -> list[str]:
    lines = ["### How long a run is\n"]
    for (load,), cell in rows.group_by(["load"], maintain_order=True):
        lines.append(f"**16 ranks in lockstep, load {load}: E2E s, by requests a rank**\n")
        lines += grid(cell, "requests", "policy", "policy", BASE, changes("E2E s"))
    return lines


def _of_alone(rows: polars.DataFrame) -> list[str]:
    lines = ["### One request in an empty group\n", "**TTFT s**\n"]
    both = rows.with_columns(machine=polars.format("{}, {}", "kind", "policy"))
    return [*lines, *grid(both, "machine", "ranks", "machine", None, means("TTFT s"))]


if __name__ == "__main__":
    plans.main(__doc__ or "", Path(__file__).parent, QUESTIONS, text, needs_traces=False)
