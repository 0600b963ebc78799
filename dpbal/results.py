"""The files a run leaves: ``result.json``, the resolved config, and two tables as Parquet."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpbal.backends.base import Outcome, Records
from dpbal.budgets import BUDGETS
from dpbal.config import Config, to_dict
from dpbal.indexers import OwnRecord
from dpbal.metrics import is_unstable
from dpbal.metrics import summarise as summarise_records
from dpbal.modes import GroupKind
from dpbal.parts import build
from dpbal.workloads.base import Requests

if TYPE_CHECKING:
    import polars

PACKAGES = ("dpbal", "numpy", "numba", "hydra-core")

CLOSED = {
    "ttft_mean": ("ttft_s", "mean"),
    "ttft_p99": ("ttft_s", "p99"),
    "tpot_mean": ("tpot_s", "mean"),
    "e2e_mean": ("e2e_s", "mean"),
}
"""Metrics for which the closed part of the gap is given."""

SMALL_GAP = 0.05
"""Under this share of the worse value there is no gap to speak of."""


def summarise(
    config: Config,
    choices: Mapping[str, str],
    requests: Requests,
    records: Records,
    baseline: Records | None,
    pooled: Records | None,
    loss: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that ``result.json`` holds.

    Args:
        config: What was run.
        choices: The choice of every group, as typed; which tracker follows makes no result.
        requests: On what.
        records: What happened.
        baseline: What round robin did, or None if it did not run.
        pooled: What the pooled reference did, or None if it did not run.
        loss: Where the loss goes, as ``dpbal.loss.split`` has it, or None if it was not asked for.
    """
    slo = config.slo
    result: dict[str, Any] = dict(summarise_records(records, slo))
    result["requests_digest"] = requests_digest(requests)
    result["content_digest"] = content_digest(requests)
    result["rate_rps"] = requests.rate if np.isfinite(requests.rate) else None
    result["baseline"] = None if baseline is None else summarise_records(baseline, slo)
    result["pooled"] = None if pooled is None else summarise_records(pooled, slo)
    result["gap_closed"] = None
    if baseline is not None and pooled is not None:
        result["baseline"]["unstable"] = is_unstable(baseline)
        result["gap_closed"] = gap_closed(
            result, result["baseline"], result["pooled"], result["baseline"]["unstable"]
        )
    result["loss"] = loss
    result["unstable"] = is_unstable(records)
    result["no_effect"] = no_effect(config, requests)
    emulation = records.emulation
    result["emulation"] = None if emulation is None else asdict(emulation)
    result["speed"] = {
        "wall_s": records.wall_s,
        "requests_per_s": len(records.decision_ns) / records.wall_s,
        "rank_steps_per_s": len(records.steps) / records.wall_s,
    }
    decisions_us = records.decision_ns[1:] / 1e3  # the first loads what is compiled
    result["decisions"] = {
        "count": len(records.decision_ns),
        "p50_us": float(np.quantile(decisions_us, 0.5)) if len(decisions_us) else None,
        "p99_us": float(np.quantile(decisions_us, 0.99)) if len(decisions_us) else None,
    }
    result["choices"] = {group: name for group, name in choices.items() if group != "tracker"}
    result["config"] = to_dict(config)
    result["seed"] = config.seed
    result["versions"] = versions()
    return result


def versions() -> dict[str, str]:
    """Of what a result depends on beside its config."""
    packages = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **packages}


def requests_digest(requests: Requests) -> str:
    """A name for this very set of requests: runs that bear the same one met the same requests.

    Arrivals count to the microsecond, as their last digits differ from machine to machine.
    """
    arrivals_us = np.rint((requests.arrival_s - requests.arrival_s[0]) * 1e6)
    columns = [
        arrivals_us,
        requests.prompt_tokens,
        requests.output_tokens,
        requests.hash_offsets if requests.has_hashes else None,
        requests.block_hashes,
        requests.session,
        requests.pinned_rank,
    ]
    return _digest(columns)


def content_digest(requests: Requests) -> str:
    """A name for what was asked, whenever it arrived: only other content is another replicate.

    Requests that are all alike differ in their arrivals only, which then count.
    """
    sizes = (requests.prompt_tokens, requests.output_tokens)
    if not requests.has_hashes and all((column == column[0]).all() for column in sizes):
        return requests_digest(requests)
    hash_offsets = requests.hash_offsets if requests.has_hashes else None
    return _digest([*sizes, hash_offsets, requests.block_hashes])


def _digest(columns: Iterable[np.ndarray | None]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for column in columns:
        values = np.zeros(0, "<i8") if column is None else np.ascontiguousarray(column, "<i8")
        digest.update(len(values).to_bytes(8, "little"))
        digest.update(values.tobytes())
    return digest.hexdigest()


def gap_closed(
    policy: Mapping[str, Any],
    baseline: Mapping[str, Any],
    pooled: Mapping[str, Any],
    baseline_unstable: bool,
) -> dict[str, float | None]:
    """(round robin - policy) / (round robin - pooled) for each metric.

    None where round robin is unstable, where the three did not finish equally many requests, or
    where the gap is under 5 % of round robin's value: a share of nearly nothing says nothing.
    """
    closed: dict[str, float | None] = {}
    finished = {side["requests"]["finished"] for side in (policy, baseline, pooled)}
    for name, (metric, statistic) in CLOSED.items():
        values = [side[metric][statistic] for side in (policy, baseline, pooled)]
        closed[name] = None
        if baseline_unstable or len(finished) > 1 or None in values:
            continue
        closed[name] = share_closed(*values)
    return closed


def share_closed(own: float, worst: float, best: float) -> float | None:
    """``(worst - own) / (worst - best)``; None where that gap is under 5 % of ``worst``."""
    is_gap = worst - best >= SMALL_GAP * worst > 0
    return (worst - own) / (worst - best) if is_gap else None


def no_effect(config: Config, requests: Requests) -> list[str]:
    """Parts of the combination that change nothing, each with the reason."""
    balancer = build("balancer", config.balancer)
    rule = config.balancer["name"]
    idle = []
    if config.group.ranks == 1:  # what a rule expects to be cached still tells the budget
        parts = "signal" if balancer.uses_prefixes else "balancer, signal"
        idle.append(f"{parts}, transport, ledger.mode: there is one rank to choose")
    if not balancer.uses_signal:
        idle.append(f"signal: {rule} does not rank by it")
    if not balancer.uses_reports:
        idle.append(f"transport: {rule} does not read reports")
        idle.append(f"ledger.mode: {rule} does not read what is in flight")
    elif not balancer.uses_in_flight and not build("signal", config.signal).reads_in_flight:
        idle.append("ledger.mode: the signal does not read what is in flight")
    if not balancer.uses_prefixes:
        if _is_chosen(config.indexer):
            idle.append(f"indexer: {rule} does not ask what ranks hold")
    elif not requests.has_hashes:
        idle.append("indexer: the workload knows no prefix hashes")
    elif not config.backend.get("prefix_cache", True):
        idle.append("indexer: ranks reuse nothing without backend.prefix_cache")
    if config.group.kind is GroupKind.independent and BUDGETS[config.budget["name"]].needs_lockstep:
        idle.append(f"budget: {config.budget['name']} acts in lockstep groups only")
    if config.workload.get("rate") is not None and config.workload.get("load") is not None:
        idle.append("workload.load: workload.rate takes its place")
    for key in ("prefix_cache", "shared_prefix_store"):
        if config.backend.get(key) and not requests.has_hashes:
            idle.append(f"backend.{key}: the workload knows no prefix hashes")
    if config.backend.get("shared_prefix_store") and not config.backend.get("prefix_cache"):
        idle.append("backend.shared_prefix_store: ranks reuse nothing without prefix_cache")
    return idle


def _is_chosen(indexer: Mapping[str, Any]) -> bool:
    """Whether it is another than what is there where nobody has chosen any."""
    return bool(indexer) and build("indexer", indexer) != OwnRecord()


def write(directory: Path, config: Config, summary: dict[str, Any], records: Records) -> None:
    """Write all files of a run; ``result.json`` last, so that its presence means completeness."""
    from omegaconf import OmegaConf

    directory.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(to_dict(config)), directory / "config.yaml")
    _requests_frame(records).write_parquet(directory / "requests.parquet")
    _frame(records.steps).write_parquet(directory / "steps.parquet")
    partial = directory / "result.json.partial"
    partial.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    partial.replace(directory / "result.json")


def _requests_frame(records: Records) -> polars.DataFrame:
    import polars

    names = polars.Series([outcome.name for outcome in Outcome])
    outcomes = polars.Enum(names)
    frame = _frame(records.requests)
    return frame.with_columns(
        polars.col("dispatch_s", "first_token_s", "finish_s").fill_nan(None),
        polars.when(polars.col("rank") >= 0).then(polars.col("rank")).alias("rank"),
        polars.col("outcome")
        .cast(polars.UInt32)
        .replace_strict(list(range(len(names))), names, return_dtype=outcomes),
    )


def _frame(rows: np.ndarray) -> polars.DataFrame:
    import polars

    names = rows.dtype.names or ()
    return polars.DataFrame({name: np.ascontiguousarray(rows[name]) for name in names})
