"""What each prefill budget does to a lockstep group, under round robin and under least_prefill.

    DPBAL_TRACES=FOLDER python -m experiments.budgets.run
    python -m experiments.budgets.figure

All policies meet the same requests. Settings that are called tuned were chosen by the study of the
level budget (experiments/level) on the first half of each trace, or on seeds 0 and 1; this study
reports windows of the second half, and other seeds. ``level`` has its defaults everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import polars

from experiments import plans
from experiments.effects import POOLED
from experiments.grids import changes, grid, shares
from experiments.held_out import MOONCAKE, TRACES, workload_lines
from experiments.plans import POOLED_TOO, Policies, Task, tasks

WORKLOADS = (*TRACES, "conv_like", "reasoning")
PROFILES = ("lds_prototype", "deepseek_v3_h200")
DRAWS = 5
"""Windows or seeds of each cell."""

REQUESTS = 2000
"""Of workloads that are no traces."""

TUNED_FOR = {"conv_like": "azure_conv"}
"""What a workload without settings of its own takes them from: the trace it imitates."""

TUNING = Path(__file__).parents[1] / "level"
BASE = "round_robin + fixed"
UNSHOWN = (("round_robin", "aligned"), ("round_robin", "time_cap"))
"""Pairs that run with tuned settings only."""


class Cell(NamedTuple):
    """What all policies have in common.

    Attributes:
        workload: Its name.
        profile: Its name.
        load: Of the pooled machine.
    """

    workload: str
    profile: str
    load: float

    def lines(self, draw: int) -> tuple[str, ...]:
        """The configuration of a window or seed."""
        own = [
            *workload_lines(self.workload, draw, REQUESTS),
            f"profile={self.profile}",
            f"workload.load={self.load}",
        ]
        if self.workload == MOONCAKE:
            own.append("backend.shared_prefix_store=true")
        return tuple(own)


@lru_cache
def _settings() -> polars.DataFrame:
    """What the study of the level budget chose for each cell, where it had a choice."""
    columns = ("workload", "profile", "load", "policy", "setting")
    frames = [
        polars.read_csv(TUNING / f"{question}.csv", schema_overrides={"overrides": polars.String})
        .filter(polars.col("overrides").fill_null("") == "")
        .select(columns)
        for question in ("gap", "loads", "reasoning")
    ]
    return polars.concat(frames).unique(maintain_order=True)


def tuned(cell: Cell, policy: str) -> tuple[str, ...] | None:
    """Overrides that were chosen for a policy in a cell; None where nobody chose any."""
    found = _settings().filter(
        polars.col("workload") == TUNED_FOR.get(cell.workload, cell.workload),
        polars.col("profile") == cell.profile,
        polars.col("load") == cell.load,
        polars.col("policy") == policy,
    )
    return tuple(found["setting"][0].split(" ")) if len(found) else None


def policies(cell: Cell) -> Policies:
    """All that meet the requests of a cell."""
    first = {name: f"balancer={name}" for name in ("round_robin", "least_prefill")}
    plain: Policies = {
        f"{balancer} + {budget}": (line, f"budget={budget}")
        for (balancer, line), budget in product(
            first.items(), ("fixed", "interval", "aligned", "time_cap", "level")
        )
        if (balancer, budget) not in UNSHOWN
    }
    chosen = {
        f"{balancer} + {budget}, tuned": tuned(cell, f"{balancer} + {budget}")
        for balancer, budget in product(first, ("aligned", "time_cap"))
    }
    known: Policies = {name: lines for name, lines in chosen.items() if lines is not None}
    return {**plain, **known, **POOLED_TOO}


def loads() -> Iterator[Task]:
    """Nearly full, and half."""
    cells = [Cell(*parts) for parts in product(WORKLOADS, PROFILES, (0.85,))]
    cells += [Cell(*parts) for parts in product(WORKLOADS, PROFILES[:1], (0.5,))]
    for cell in cells:
        yield from tasks([cell], policies(cell), DRAWS)


QUESTIONS = {"loads": loads}

ORDER = [
    BASE,
    "round_robin + interval",
    "round_robin + aligned, tuned",
    "round_robin + time_cap, tuned",
    "round_robin + level",
    "least_prefill + fixed",
    "least_prefill + interval",
    "least_prefill + aligned",
    "least_prefill + aligned, tuned",
    "least_prefill + time_cap",
    "least_prefill + time_cap, tuned",
    "least_prefill + level",
    POOLED,
]
"""Of the tables."""


def text(question: str, rows: polars.DataFrame) -> str:
    """A table for each profile, load and metric: policies against workloads."""
    lines = ["### Policies against workloads\n"]
    place = {name: number for number, name in enumerate(ORDER)}
    ordered = rows.sort(
        polars.col("policy").replace_strict(place, return_dtype=polars.Int64), maintain_order=True
    )
    for (load, profile), cell in ordered.group_by(["load", "profile"], maintain_order=True):
        metrics = ("TTFT s", "TTFT p99 s", "E2E s") if load == 0.85 else ("TTFT s", "E2E s")
        for metric in metrics:
            lines.append(f"**{profile}, load {load}: {metric}**, change against `{BASE}`\n")
            lines += grid(cell, "policy", "workload", "policy", BASE, changes(metric))
        pooled = cell.filter(polars.col("policy") == POOLED)
        others = cell.filter(polars.col("policy") != POOLED)
        lines.append(f"**{profile}, load {load}: share of the gap closed, E2E**\n")
        closed = shares("E2E s", pooled, ("workload",))
        lines += grid(others, "policy", "workload", "policy", BASE, closed)
    return "\n".join(lines)


if __name__ == "__main__":
    plans.main(__doc__ or "", Path(__file__).parent, QUESTIONS, text)
