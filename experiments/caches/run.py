"""Prefix caches: which rule, which indexer, and what a wrong index costs.

    DPBAL_TRACES=FOLDER python -m experiments.caches.run
    python -m experiments.caches.figure

A compact companion of experiments/prefix, on windows of the second half of the trace and on seeds
that nothing was chosen on. All policies of a cell meet the same requests; caches start cold.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import polars

from experiments import plans
from experiments.cells import LATENCIES, Shown
from experiments.effects import POOLED, table
from experiments.held_out import MOONCAKE, workload_lines
from experiments.plans import POOLED_TOO, Policies, Task, tasks
from experiments.prefix.cells import KINDS

DRAWS = 5
"""Windows or seeds of each cell."""

REQUESTS = 2000
SHOWN: Shown = {"hits %": ("prefix_hit_share", None, 100.0), **LATENCIES}
COMPARED = ("hits %", "TTFT s", "TTFT p99 s", "E2E s")
BLIND = "least_prefill"
OURS = "marginal_prefill"
ORACLE = "oracle"
CELLS = (
    *product((MOONCAKE, "conversations", "hot_prefix"), ("lockstep", "independent")),
    (MOONCAKE, "fitted"),
)

RULES: Policies = {
    BLIND: ("balancer=least_prefill",),
    "round_robin": ("balancer=round_robin",),
    "cache_aware": ("balancer=cache_aware",),
    "llm_d": ("balancer=llm_d",),
    "lmetric": ("balancer=lmetric",),
    "dynamo": ("balancer=dynamo",),
    "session_affinity": ("balancer=session_affinity",),
    "least_prefill, miss_weight 8": ("balancer=least_prefill", "balancer.miss_weight=8"),
    OURS: ("balancer=marginal_prefill",),
    **POOLED_TOO,
}
INDEXERS: dict[str, tuple[str, ...]] = {
    ORACLE: ("indexer=oracle",),
    "own_record": ("indexer=own_record",),
    "own_record of a quarter": ("indexer=own_record", "indexer.size=0.25"),
    "shared_record": ("indexer=shared_record",),
    "kv_events, 0.5 s late": ("indexer=kv_events", "indexer.delay_s=0.5"),
    "kv_events, 5 s late": ("indexer=kv_events", "indexer.delay_s=5"),
    "kv_events, 60 s late": ("indexer=kv_events", "indexer.delay_s=60"),
    "none": ("indexer=none",),
}
"""What ``marginal_prefill`` may know; sizes are in caches of a rank."""

RESETS_S = list(range(30, 1800, 30))
"""When all caches are cleared, which own records do not notice."""


class Cell(NamedTuple):
    """What all policies have in common.

    Attributes:
        workload: Its name.
        kind: One of ``KINDS`` of experiments/prefix.
        dispatchers: Front ends, each with an index of its own.
        resets: Whether caches are cleared every 30 s.
    """

    workload: str
    kind: str
    dispatchers: int = 1
    resets: bool = False

    def lines(self, draw: int) -> tuple[str, ...]:
        """The configuration of a window or seed."""
        return (
            *workload_lines(self.workload, draw, REQUESTS),
            "workload.load=0.85",
            f"group.dispatchers={self.dispatchers}",
            *((f"backend.cache_resets={RESETS_S}",) if self.resets else ()),
            *KINDS[self.kind],
        )


def rules() -> Iterator[Task]:
    """Every rule with its defaults, and the same record of its own."""
    return tasks((Cell(*parts) for parts in CELLS), RULES, DRAWS)


def indexers() -> Iterator[Task]:
    """The same rule with more and less knowledge, one front end and four, caches that are reset."""
    known: Policies = {name: (*(RULES[OURS] or ()), *lines) for name, lines in INDEXERS.items()}
    cells = [
        Cell(MOONCAKE, kind, count, resets)
        for kind, (count, resets) in product(
            ("lockstep", "independent"), ((1, False), (4, False), (1, True))
        )
    ]
    return tasks(cells, known)


QUESTIONS = {"rules": rules, "indexers": indexers}
TITLES = {"rules": "Which rule", "indexers": "What `marginal_prefill` knows"}


def text(question: str, rows: polars.DataFrame) -> str:
    """A table for each cell."""
    lines = [f"### {TITLES[question]}\n"]
    names = ["workload", "kind", "dispatchers", "resets"]
    for (workload, kind, count, resets), cell in rows.group_by(names, maintain_order=True):
        more = [f"{count} front ends"] if count != 1 else []
        more += ["all caches cleared every 30 s"] if resets else []
        lines.append(f"**{', '.join([str(workload), str(kind), *more])}**\n")
        base, gap = (BLIND, "E2E s") if question == "rules" else (ORACLE, None)
        lines += table(cell, "policy", base, COMPARED, gap, f"way from {BLIND} to {POOLED}")
    return "\n".join(lines)


if __name__ == "__main__":
    plans.main(__doc__ or "", Path(__file__).parent, QUESTIONS, text, SHOWN)
