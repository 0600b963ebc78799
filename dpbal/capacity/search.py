"""Searches the capacity of a combination: one bisection for each set of requests, paired."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dpbal.capacity.bisection import Crossing, Verdict, cross, halvings
from dpbal.config import Capacity, Config, to_dict
from dpbal.errors import ConfigError

LEVEL = 0.95
"""Of the interval over seeds."""

SAME = (
    "the trace is the same for every seed: one search, no interval; use workload.windows for more"
)

FILE = "capacity.json"


def find_capacity(config: Config, directory: Path, show: bool = True) -> dict[str, Any]:
    """Find the capacity that a config asks for, write it into ``directory``, and return it.

    Args:
        config: The combination; ``capacity`` says what to look for.
        directory: Where the files go.
        show: Whether to print anything.

    Raises:
        DpbalError: For anything wrong with the config or its workload.
    """
    from dpbal.capacity import overview
    from dpbal.progress import Progress
    from dpbal.tracking.run_info import RunInfo

    wanted = config.capacity
    if wanted is None:
        raise ConfigError("the config asks for no capacity search; type experiment=capacity")
    _check(config, wanted)
    (directory / "capacity.json").unlink(missing_ok=True)  # of a search that was here before
    each = 2 + halvings(wanted.low, wanted.high, wanted.tolerance)
    done = 0
    seeds = []
    searched = set()
    with Progress(config.progress and show) as progress:
        tell = progress.track("capacity", each * wanted.seeds)
        for number in range(wanted.seeds):
            seeded = replace(config, seed=config.seed + number)
            attained, saturation_rps, content = _trial(seeded)
            if content in searched:
                continue
            searched.add(content)

            def counted(load: float, attained: Callable[[float], float] = attained) -> float:
                nonlocal done
                share = attained(load)
                done += 1
                if tell is not None:
                    tell(done)
                return share

            found = cross(counted, *(wanted.attainment, wanted.low, wanted.high, wanted.tolerance))
            done = each * (number + 1)
            seeds.append(_seed(seeded.seed, found, saturation_rps))
    choices = RunInfo(config, directory).choices
    summary = summarise(config, wanted, choices, seeds)
    _write(directory, config, summary)
    if show:
        overview.show(summary, directory)
    return summary


def summarise(
    config: Config, wanted: Capacity, choices: Mapping[str, str], seeds: list[dict[str, Any]]
) -> dict[str, Any]:
    """Everything that ``capacity.json`` holds."""
    from dpbal.results import versions

    verdict = _verdict([seed["verdict"] for seed in seeds])
    same = [SAME] if len(seeds) == 1 < wanted.seeds else []
    is_found = verdict == Verdict.found.value
    return {
        "verdict": verdict,
        "load": _estimate([seed["load"] for seed in seeds]) if is_found else None,
        "rate_rps": _estimate([seed["rate_rps"] for seed in seeds]) if is_found else None,
        "attainment": wanted.attainment,
        "tolerance": wanted.tolerance,
        "warnings": same + [warning for seed in seeds for warning in seed["warnings"]],
        "seeds": seeds,
        "choices": {group: name for group, name in choices.items() if group != "tracker"},
        "config": to_dict(config),
        "versions": versions(),
    }


def _check(config: Config, wanted: Capacity) -> None:
    if config.workload.get("rate") is not None:
        raise ConfigError(
            f"workload.rate={config.workload['rate']} sets the rate, which a capacity search "
            "varies; type workload.rate=null"
        )
    if wanted.high > 1 and not config.workload.get("allow_overload"):
        raise ConfigError(
            f"capacity.high={wanted.high} is above 1, where queues grow without end; "
            "if that is meant, add workload.allow_overload=true"
        )
    if config.tracker["name"] != "none":
        raise ConfigError(
            f"tracker={config.tracker['name']} follows single runs, not a capacity search; "
            "type tracker=none"
        )


def _trial(config: Config) -> tuple[Callable[[float], float], float, str]:
    """The share of good requests by load, the rate that is a load of 1, and what is asked."""
    from dpbal.experiment import Experiment, build_parts
    from dpbal.metrics import latencies
    from dpbal.results import content_digest

    experiment = Experiment(config)
    requests = experiment.requests
    if requests.rate == float("inf"):
        raise ConfigError("the requests all arrive at once, so that there is no load to vary")
    saturation_rps = experiment.saturation_rate

    def attained(load: float) -> float:
        at_load = requests.at_rate(load * saturation_rps)
        records = experiment.backend.run(at_load, build_parts(config))
        return float(latencies(records, config.slo).is_good.sum() / len(at_load))

    return attained, saturation_rps, content_digest(requests)


def _seed(seed: int, found: Crossing, saturation_rps: float) -> dict[str, Any]:
    warnings = [
        f"seed {seed}: more requests are good at load {b:.4g} than at {a:.4g}, so that there may "
        "be more than one crossing"
        for a, b in found.rises
    ]
    return {
        "seed": seed,
        "verdict": found.verdict.value,
        "load": found.load,
        "rate_rps": None if found.load is None else found.load * saturation_rps,
        "saturation_rps": saturation_rps,
        "points": [{"load": load, "good_share": share} for load, share in found.points],
        "warnings": warnings,
    }


def _verdict(verdicts: list[str]) -> str:
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return ", ".join(f"{name} for {verdicts.count(name)} seeds" for name in sorted(set(verdicts)))


def _estimate(values: list[float]) -> dict[str, float | None]:
    """Mean over seeds with Student's t interval; no interval for a single seed."""
    from dpbal.comparison.statistics import paired

    estimate = paired(values, [0.0] * len(values), LEVEL, rounding=0.0)
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}


def _write(directory: Path, config: Config, summary: dict[str, Any]) -> None:
    from omegaconf import OmegaConf

    directory.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(to_dict(config)), directory / "config.yaml")
    partial = directory / f"{FILE}.partial"
    partial.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    partial.replace(directory / FILE)
