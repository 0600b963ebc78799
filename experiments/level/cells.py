"""One run of the study: a policy, or the pooled machine, on a window of a trace or a seed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from dpbal.composition import compose
from dpbal.config import Config
from dpbal.experiment import Experiment
from dpbal.metrics import is_unstable, summarise
from dpbal.progress import Progress

TRACES = ("azure_conv", "azure_code", "mooncake_conversation")
SHOWN = {
    "TTFT s": ("ttft_s", "mean", 1.0),
    "TTFT p99 s": ("ttft_s", "p99", 1.0),
    "TPOT ms": ("tpot_s", "mean", 1e3),
    "E2E s": ("e2e_s", "mean", 1.0),
}


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


@lru_cache(maxsize=8)
def _first(cell: Cell, draw: int) -> Experiment:
    return Experiment(compose(*cell.lines(draw)))


def run(cell: Cell, draw: int, policy: tuple[str, ...] | None) -> dict[str, Any]:
    """Metrics of a policy, or of the pooled machine where it is None, on the cell's requests."""
    first = _first(cell, draw)
    if policy is None:
        return measured(first, None)
    config = compose(*cell.lines(draw), *policy)
    config.workload["load"] = None  # a policy that changes the engine meets the same requests
    config.workload["rate"] = first.requests.rate
    return measured(Experiment(config), config)


def measured(experiment: Experiment, config: Config | None) -> dict[str, Any]:
    """Run it, and take what the tables show."""
    records = experiment.run(Progress(enabled=False)) if config else experiment.run_pooled()
    metrics: dict[str, Any] = dict(summarise(records, experiment.config.slo))
    counts = metrics["requests"]
    return {
        **{name: metrics[key][stat] * scale for name, (key, stat, scale) in SHOWN.items()},
        "good": metrics["good_share"],
        "straggler": metrics["straggler_share"],
        "lost": counts["offered"] - counts["finished"],
        "unstable": is_unstable(records),
    }
