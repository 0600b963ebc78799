"""What it costs that several front ends do not know of each other.

    DPBAL_TRACES=FOLDER python -m experiments.dispatchers.run
    python -m experiments.dispatchers.figure

Requests go to the front ends in turn. Each has a ledger of its own, and learns of what the others
sent from the ranks' reports alone. All policies meet the same requests, and nothing was tuned.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import polars

from experiments import plans
from experiments.grids import changes, grid
from experiments.held_out import workload_lines
from experiments.plans import Policies, Task, tasks
from experiments.staleness.cells import NO_DECODE_WORK

TRACE = "azure_conv"
DRAWS = 5
"""Windows or seeds of each cell."""

REQUESTS = 2000
LOAD = 0.85
KINDS = {
    "lockstep, level": ("group.kind=lockstep", "profile=lds_prototype", "budget=level"),
    "lockstep, fixed": ("group.kind=lockstep", "profile=lds_prototype", "budget=fixed"),
    "independent": ("group.kind=independent", "profile=i8b_prototype", "budget=fixed"),
}
"""How the ranks step, on which profile, under which budget."""

BASE = "round_robin"
RULES = ("minimum_tokens", "fewest_requests", "least_prefill", "power_of_two", "vllm")
TRANSPORTS = ("shm", "poll_50ms", "poll_1s")


class Cell(NamedTuple):
    """What all policies have in common.

    Attributes:
        workload: Its name.
        kind: One of ``KINDS``.
        dispatchers: Front ends.
    """

    workload: str
    kind: str
    dispatchers: int

    def lines(self, draw: int) -> tuple[str, ...]:
        """The configuration of a window or seed."""
        return (
            *workload_lines(self.workload, draw, REQUESTS),
            f"workload.load={LOAD}",
            f"group.dispatchers={self.dispatchers}",
            *KINDS[self.kind],
        )


def herds() -> Iterator[Task]:
    """All rules, as reports get older and front ends more."""
    policies: Policies = {
        BASE: ("balancer=round_robin",),
        **{
            f"{rule}, {transport}": (f"balancer={rule}", f"transport={transport}")
            for rule, transport in product(RULES, TRANSPORTS)
        },
    }
    cells = [Cell(TRACE, kind, n) for kind, n in product(KINDS, (1, 2, 4, 8, 16))]
    cells += [Cell("conv_like", "independent", n) for n in (1, 4, 16)]
    return tasks(cells, policies, DRAWS)


def ties() -> Iterator[Task]:
    """Ties that rotate from a place of each front end's own, and ties to the first rank."""
    return _variants({"rotate": (), "first": ("balancer.ties=first",)})


def ledgers() -> Iterator[Task]:
    """Reports that acknowledge what they cover, and reports that erase all in flight."""
    return _variants({"acknowledge": (), "overwrite": ("ledger.mode=overwrite",)})


def alike() -> Iterator[Task]:
    """Front ends that agree too well, and what keeps them apart.

    The pair of changes was found on windows 5 to 9 of ``azure_conv``; these are others.
    """
    apart, random = NO_DECODE_WORK, "balancer.ties=random"
    policies: Policies = {
        BASE: ("balancer=round_robin",),
        "least_prefill": ("balancer=least_prefill",),
        "ties=random": ("balancer=least_prefill", random),
        "no decode_work": ("balancer=least_prefill", apart),
        "both": ("balancer=least_prefill", apart, random),
    }
    unseen = {TRACE: range(5), "azure_code": range(5, 10), "conv_like": range(2, 7)}
    for workload, numbers in unseen.items():
        for kind, front_ends, draw in product(KINDS, (1, 2, 4, 8, 16), numbers):
            yield Task(Cell(workload, kind, front_ends), draw, policies)


def _variants(variants: dict[str, tuple[str, ...]]) -> Iterator[Task]:
    policies: Policies = {
        BASE: ("balancer=round_robin",),
        **{
            f"{rule}, {transport}, {name}": (
                f"balancer={rule}",
                f"transport={transport}",
                *lines,
            )
            for rule, transport, (name, lines) in product(
                ("minimum_tokens", "least_prefill"), ("shm", "poll_1s"), variants.items()
            )
        },
    }
    kinds = ("lockstep, level", "independent")
    cells = [Cell(TRACE, kind, n) for kind, n in product(kinds, (1, 4, 16))]
    return tasks(cells, policies, DRAWS)


QUESTIONS = {"herds": herds, "alike": alike, "ties": ties, "ledgers": ledgers}
TITLES = {
    "herds": "More front ends, older reports",
    "alike": "Front ends that agree too well",
    "ties": "Ties",
    "ledgers": "Ledgers",
}


def text(question: str, rows: polars.DataFrame) -> str:
    """A table for each cell and metric: policies against the number of front ends."""
    lines = [f"### {TITLES[question]}\n"]
    for (workload, kind), cell in rows.group_by(["workload", "kind"], maintain_order=True):
        for metric in ("TTFT s", "TTFT p99 s", "E2E s") if question == "herds" else ("TTFT s",):
            lines.append(f"**{workload}, {kind}: {metric}**, change against `{BASE}`\n")
            lines += grid(cell, "policy", "dispatchers", "policy", BASE, changes(metric))
    return "\n".join(lines)


if __name__ == "__main__":
    plans.main(__doc__ or "", Path(__file__).parent, QUESTIONS, text)
