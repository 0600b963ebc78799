"""What studies of cells share: all policies of a cell meet the same requests."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from typing import Any, Protocol

from dpbal.composition import compose
from dpbal.config import Config
from dpbal.experiment import Experiment
from dpbal.metrics import is_unstable, summarise
from dpbal.progress import Progress

Shown = dict[str, tuple[str, str | None, float]]
"""Of each column the metric, its statistic where it has several, and a factor."""

LATENCIES: Shown = {
    "TTFT s": ("ttft_s", "mean", 1.0),
    "TTFT p99 s": ("ttft_s", "p99", 1.0),
    "TPOT ms": ("tpot_s", "mean", 1e3),
    "E2E s": ("e2e_s", "mean", 1.0),
}


PLAIN = {
    "seed": int,
    "workload.window": int,
    "transport.delay_s": float,
    "transport.interval_s": float,
}
"""Values that are set in a config composed before, as to compose one takes longer than a run."""


class Cell(Protocol):
    """What all policies have in common; it can be hashed."""

    def lines(self, draw: int) -> tuple[str, ...]:
        """The configuration of a window or seed."""


@lru_cache(maxsize=8)
def _first(cell: Cell, draw: int) -> Experiment:
    return Experiment(composed(*cell.lines(draw)))


def composed(*lines: str) -> Config:
    """What ``dpbal.composition.compose`` makes of the lines."""
    values = dict(line.split("=", 1) for line in lines if line.partition("=")[0] in PLAIN)
    others = (line for line in lines if line.partition("=")[0] not in PLAIN)
    config = deepcopy(_composed(*others, *(f"{key}=0" for key in values)))
    for key, value in values.items():
        family, _, name = key.rpartition(".")
        if family:
            getattr(config, family)[name] = PLAIN[key](value)
        else:
            setattr(config, name, PLAIN[key](value))
    return config


_composed = lru_cache(maxsize=256)(compose)


def measure(
    cell: Cell, draw: int, policy: tuple[str, ...] | None, shown: Shown
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a policy, or the pooled machine where it is None, on the cell's requests.

    Returns:
        What is shown; and all metrics, with the requests that were lost and whether it was
        unstable.
    """
    experiment = _first(cell, draw)
    if policy is None:
        records = experiment.run_pooled()
    else:
        config = composed(*cell.lines(draw), *policy)
        config.workload["load"] = None  # a policy that changes the engine meets the same requests
        config.workload["rate"] = experiment.requests.rate
        records = Experiment(config).run(Progress(enabled=False))
    metrics: dict[str, Any] = dict(summarise(records, experiment.config.slo))
    columns = {
        name: (metrics[key] if stat is None else metrics[key][stat]) * scale
        for name, (key, stat, scale) in shown.items()
    }
    counts = metrics["requests"]
    metrics["lost"] = counts["offered"] - counts["finished"]
    metrics["unstable"] = is_unstable(records)
    return columns, metrics
