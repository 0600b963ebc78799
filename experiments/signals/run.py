"""Which load signal to place by: one argmin, every signal, and otherwise the same group.

    DPBAL_TRACES=FOLDER python -m experiments.signals.run
    python -m experiments.signals.figure    # needs dpbal[report]

All signals meet the same requests in every window or seed, and nothing was tuned. Reports come as
shared memory was measured to carry them. Mooncake's prompts share prefixes: all ranks have one
store of them, so that a hit does not depend on where a request goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import polars

from experiments import plans
from experiments.effects import POOLED
from experiments.grids import changes, grid, shares
from experiments.held_out import KINDS, MOONCAKE, workload_lines
from experiments.plans import POOLED_TOO, Policies, Task, tasks
from experiments.transports.cells import transport_lines

WORKLOADS = ("azure_conv", "azure_code", MOONCAKE, "reasoning")
REQUESTS = 2000
"""Of a seed of drawn requests."""

SIGNALS = (
    "holding_tokens",
    "holding_in_flight",
    "get_load",
    "get_load_in_flight",
    "requests",
    "requests_in_flight",
    "in_flight",
    "decode_work",
    "decode_load",
    "prefill_work",
    "prefill_in_flight",
    "work_in_flight",
)
BASELINE = "round_robin"
POLICIES: Policies = {
    BASELINE: ("balancer=round_robin",),
    **{
        name: ("balancer=minimum_tokens", f"signal={name}", *transport_lines("shm"))
        for name in SIGNALS
    },
    **POOLED_TOO,
}
METRICS = ("TTFT s", "TTFT p99 s", "TPOT ms", "E2E s")
TITLES = {
    "fixed": "Load 0.85, no limit on prefill",
    "level": "Load 0.85, `budget=level`",
    "lower": "Load 0.7, no limit on prefill",
}


class Cell(NamedTuple):
    """What all signals have in common.

    Attributes:
        workload: One of ``WORKLOADS``.
        kind: One of ``KINDS``.
        load: Of the pooled machine.
        budget: Its name.
    """

    workload: str
    kind: str
    load: float = 0.85
    budget: str = "fixed"

    def lines(self, draw: int) -> tuple[str, ...]:
        """The configuration of a window or seed."""
        return (
            *workload_lines(self.workload, draw, REQUESTS),
            f"workload.load={self.load}",
            *KINDS[self.kind],
            f"budget={self.budget}",
            *(("backend.shared_prefix_store=true",) if self.workload == MOONCAKE else ()),
        )


def fixed() -> Iterator[Task]:
    """Nearly full, with no limit on prefill."""
    return tasks((Cell(*parts) for parts in product(WORKLOADS, KINDS)), POLICIES)


def level() -> Iterator[Task]:
    """The same in lockstep, where a budget limits prefill."""
    cells = (Cell(workload, "lockstep", budget="level") for workload in WORKLOADS)
    return tasks(cells, POLICIES)


def lower() -> Iterator[Task]:
    """Less load."""
    cells = (Cell(*parts, load=0.7) for parts in product(WORKLOADS[:2], KINDS))
    return tasks(cells, POLICIES)


QUESTIONS = {"fixed": fixed, "level": level, "lower": lower}


def text(question: str, rows: polars.DataFrame) -> str:
    """A table of each metric and kind of group: signals down, workloads across."""
    lines = [f"### {TITLES[question]}\n"]
    for (kind,), own in rows.group_by(["kind"], maintain_order=True):
        pooled = own.filter(polars.col("policy") == POOLED)
        known = own.filter(polars.col("policy") != POOLED).rename({"policy": "signal"})
        for metric in METRICS if question != "lower" else METRICS[::3]:
            lines.append(f"**{kind}: {metric}**, change against `{BASELINE}`\n")
            lines += grid(known, "signal", "workload", "signal", BASELINE, changes(metric))
        if question != "lower":
            lines.append(f"**{kind}: share of the gap closed, TTFT**\n")
            share = shares("TTFT s", pooled, ("workload",))
            lines += grid(known, "signal", "workload", "signal", BASELINE, share)
    return "\n".join(lines)


if __name__ == "__main__":
    plans.main(__doc__ or "", Path(__file__).parent, QUESTIONS, text)
