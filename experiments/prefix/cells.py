"""One run of the study: a rule, or the pooled machine, on a window of a trace or a seed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from dpbal.composition import compose
from dpbal.config import Config
from dpbal.experiment import Experiment
from dpbal.metrics import is_unstable, summarise
from dpbal.progress import Progress

TRACE = "mooncake_conversation"
KINDS = {
    "lockstep": ("group.kind=lockstep", "profile=lds_prototype", "budget=level"),
    "fitted": ("group.kind=lockstep", "profile=deepseek_v3_h200", "budget=level"),
    "independent": ("group.kind=independent", "profile=i8b_prototype", "budget=fixed"),
}
"""How the ranks step, on which profile, under which budget."""

SHOWN = {
    "hits": ("prefix_hit_share", None, 1.0),
    "TTFT s": ("ttft_s", "mean", 1.0),
    "TTFT p99 s": ("ttft_s", "p99", 1.0),
    "TPOT ms": ("tpot_s", "mean", 1e3),
    "E2E s": ("e2e_s", "mean", 1.0),
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


@lru_cache(maxsize=8)
def _first(cell: Cell, draw: int) -> Experiment:
    return Experiment(compose(*cell.lines(draw)))


def run(cell: Cell, draw: int, rule: tuple[str, ...] | None) -> dict[str, Any]:
    """Metrics of a rule, or of the pooled machine where it is None, on the cell's requests."""
    first = _first(cell, draw)
    if rule is None:
        return measured(first, None)
    config = compose(*cell.lines(draw), *rule)
    config.workload["load"] = None  # all rules meet the same requests
    config.workload["rate"] = first.requests.rate
    return measured(Experiment(config), config)


def measured(experiment: Experiment, config: Config | None) -> dict[str, Any]:
    """Run it, and take what the tables show."""
    records = experiment.run(Progress(enabled=False)) if config else experiment.run_pooled()
    metrics: dict[str, Any] = dict(summarise(records, experiment.config.slo))
    counts = metrics["requests"]
    shown = {
        name: scale * (metrics[key] if stat is None else metrics[key][stat])
        for name, (key, stat, scale) in SHOWN.items()
    }
    return {
        **shown,
        "lost": counts["offered"] - counts["finished"],
        "aborted": counts["aborted"],
        "unstable": is_unstable(records),
    }
