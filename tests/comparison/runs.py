"""Runs to compare: real ones on few requests, and copies of such with other numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from dpbal.comparison.load import Result, Run
from dpbal.composition import compose
from dpbal.config import Config
from dpbal.experiment import Experiment
from dpbal.progress import Progress
from dpbal.results import summarise

SMALL = ("workload.requests=300", "group.ranks=4", "compare=false")


def simulated(*overrides: str) -> dict[str, Any]:
    """What ``result.json`` holds after a run of the simulator on few requests."""
    config: Config = compose(*SMALL, *overrides)
    experiment = Experiment(config)
    records = experiment.run(Progress(enabled=False))
    return summarise(config, {}, experiment.requests, records, None, None)


@cache
def _template() -> str:
    return json.dumps(simulated())


def result(
    *,
    balancer: str = "round_robin",
    seed: int = 0,
    requests: str | None = None,
    content: str | None = None,
    factor: float = 1.0,
    **changes: Any,
) -> dict[str, Any]:
    """A real result, changed.

    Args:
        balancer: Its combination.
        seed: Also names the requests, unless ``requests`` does.
        requests: Name of the requests it met.
        content: Name of what they asked, if that is not as distinct as they are.
        factor: Of all its latencies.
        changes: Dotted keys with ``__`` for a point, and the values they get.
    """
    made: dict[str, Any] = copy.deepcopy(json.loads(_template()))
    made["config"]["balancer"] = {"name": balancer}
    made["seed"] = made["config"]["seed"] = seed
    made["requests_digest"] = requests or f"requests of seed {seed}"
    made["content_digest"] = content or f"content of {made['requests_digest']}"
    for latency in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        made[latency] = {name: value * factor for name, value in made[latency].items()}
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = made
        for parent in parents:
            part = part[parent]
        part[last] = value
    return made


def run(argument: str = "multirun", **changes: Any) -> Run:
    """A run as ``find`` reads it, without files."""
    return Run(Path(argument), argument, msgspec.convert(result(**changes), Result))


def write(folder: Path, results: Sequence[dict[str, Any]]) -> Path:
    """A multirun of these results; its path."""
    for number, content in enumerate(results):
        job = folder / str(number)
        (job / ".hydra").mkdir(parents=True)
        (job / "result.json").write_text(json.dumps(content))
    return folder


def seeds(balancer: str, factors: Sequence[float], **changes: Any) -> list[dict[str, Any]]:
    """One result a seed, its latencies scaled."""
    return [
        result(balancer=balancer, seed=seed, factor=factor, **changes)
        for seed, factor in enumerate(factors)
    ]
