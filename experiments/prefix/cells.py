"""One run of the study: a rule, or the pooled machine, on a window of a trace or a seed."""

from __future__ import annotations

from typing import Any, NamedTuple

from experiments.cells import LATENCIES, Shown, measure

TRACE = "mooncake_conversation"
KINDS = {
    "lockstep": ("group.kind=lockstep", "profile=lds_prototype", "budget=level"),
    "fitted": ("group.kind=lockstep", "profile=deepseek_v3_h200", "budget=level"),
    "independent": ("group.kind=independent", "profile=i8b_prototype", "budget=fixed"),
}
"""How the ranks step, on which profile, under which budget."""

SHOWN: Shown = {
    "hits": ("prefix_hit_share", None, 1.0),
    **LATENCIES,
    "straggler": ("straggler_share", None, 1.0),
}


class Cell(NamedTuple):
    """What all rules have in common.

    Attributes:
        workload: Its name.
        kind: One of ``KINDS``.
        load: Of the pooled machine.
        overrides: Further lines of all rules' configuration.
    """

    workload: str = TRACE
    kind: str = "lockstep"
    load: float = 0.85
    overrides: tuple[str, ...] = ()

    @property
    def is_trace(self) -> bool:
        """Whether it is cut into windows; else it has seeds."""
        return self.workload == TRACE

    def lines(self, draw: int) -> tuple[str, ...]:
        """The configuration of a window or seed."""
        own = [f"workload={self.workload}", f"workload.load={self.load}", *KINDS[self.kind]]
        if self.is_trace:
            own += ["workload.windows=6", f"workload.window={draw}"]
        else:
            own.append(f"seed={draw}")
        return (*own, *self.overrides)


def run(cell: Cell, draw: int, rule: tuple[str, ...] | None) -> dict[str, Any]:
    """What the tables show of a rule, or of the pooled machine where it is None."""
    columns, metrics = measure(cell, draw, rule, SHOWN)
    return {
        **columns,
        "lost": metrics["lost"],
        "aborted": metrics["requests"]["aborted"],
        "unstable": metrics["unstable"],
    }
