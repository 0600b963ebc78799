"""One run of the study: a policy, or the pooled machine, on a window of a trace or a seed."""

from __future__ import annotations

from typing import Any, NamedTuple

from experiments.cells import LATENCIES, measure

TRACES = ("azure_conv", "azure_code", "mooncake_conversation")


class Cell(NamedTuple):
    """What all policies have in common.

    Attributes:
        workload: Its name.
        profile: Its name.
        load: Of the pooled machine.
        overrides: Further lines of all policies' configuration.
    """

    workload: str
    profile: str = "lds_prototype"
    load: float = 0.85
    overrides: tuple[str, ...] = ()

    @property
    def is_trace(self) -> bool:
        """Whether it is cut into windows; else it has seeds."""
        return self.workload in TRACES

    def lines(self, draw: int) -> tuple[str, ...]:
        """The configuration of a window or seed."""
        own = [f"workload={self.workload}", f"profile={self.profile}", f"workload.load={self.load}"]
        if self.is_trace:
            own += ["workload.windows=4", f"workload.window={draw}"]
        else:
            own.append(f"seed={draw}")
        if self.workload == "mooncake_conversation":
            own.append("backend.shared_prefix_store=true")
        return (*own, *self.overrides)


def run(cell: Cell, draw: int, policy: tuple[str, ...] | None) -> dict[str, Any]:
    """What the tables show of a policy, or of the pooled machine where it is None."""
    columns, metrics = measure(cell, draw, policy, LATENCIES)
    return {
        **columns,
        "good": metrics["good_share"],
        "straggler": metrics["straggler_share"],
        "lost": metrics["lost"],
        "unstable": metrics["unstable"],
    }
