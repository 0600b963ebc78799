"""The files of one run, read whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpbal.backends.base import Outcome
from dpbal.comparison.load import RESULT, ResultError, Run
from dpbal.modes import GroupKind

if TYPE_CHECKING:
    import numpy as np
    import polars

REQUESTS, STEPS = "requests.parquet", "steps.parquet"

NEEDED = (
    "baseline",
    "choices.balancer",
    "choices.budget",
    "choices.signal",
    "choices.transport",
    "decisions.p50_us",
    "decisions.p99_us",
    "emulation",
    "gap_closed",
    "loss",
    "no_effect",
    "pooled",
    "rate_rps",
    "speed.rank_steps_per_s",
    "speed.requests_per_s",
)
"""Keys that a comparison does without."""

NEEDED_OF_CONFIG = (
    "group.kind",
    "group.ranks",
    "ledger.mode",
    "profile.prefill_s_per_token",
    "slo.ttft_s",
    "slo.ttft_s_per_prompt_token",
    "slo.tpot_s",
    "workload.name",
)

COLUMNS = {
    REQUESTS: (
        "arrival_s",
        "dispatch_s",
        "first_token_s",
        "finish_s",
        "rank",
        "dispatcher",
        "prompt_tokens",
        "output_tokens",
        "cached_tokens",
        "preemptions",
        "outcome",
    ),
    STEPS: (
        "start_s",
        "end_s",
        "local_s",
        "rank",
        "prefill_tokens",
        "decode_seqs",
        "running",
        "waiting",
        "preemptions",
        "kv_used_tokens",
    ),
}
"""What figures and traces read of each table."""


def result(run: Run) -> dict[str, Any]:
    """The whole ``result.json``.

    Raises:
        ResultError: If an older dpbal wrote it.
    """
    path = run.directory / RESULT
    found: dict[str, Any] = json.loads(path.read_bytes())
    check(path, found, NEEDED)
    check(path, found["config"], NEEDED_OF_CONFIG)
    return found


def check(path: Path, found: Any, names: Iterable[str]) -> None:
    """Whether a file has all that is read of it.

    Args:
        path: The file.
        found: What is in it.
        names: Keys, those of inner objects with dots.

    Raises:
        ResultError: If one is not there.
    """
    for name in names:
        inner = found
        parts = name.split(".")
        for place, key in enumerate(parts):
            if not isinstance(inner, dict) or key not in inner:
                lost = ".".join(parts[: place + 1])
                raise ResultError(f"{path} has no {lost}; run it again with this dpbal")
            inner = inner[key]


def table(run: Run, name: str) -> polars.DataFrame:
    """A table of a run.

    Raises:
        ResultError: If it is damaged, cut, or of another dpbal.
    """
    import polars

    path = run.directory / name
    try:
        with path.open("rb") as file:  # polars takes no path that is not UTF-8
            found = polars.read_parquet(file)
    except polars.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
        raise ResultError(f"{path} cannot be read: {reason}; run it again") from None
    for column in COLUMNS[name]:
        if column not in found.columns:
            raise ResultError(f"{path} has no column {column}; run it again with this dpbal")
    ranks = run.result.config["group"]["ranks"]
    # all ranks of a lockstep group are in every step
    if name == STEPS and is_lockstep(run) and len(found) % ranks:
        raise ResultError(
            f"{path} is cut: {len(found)} rows are no whole steps of {ranks} ranks; run it again"
        )
    return found


def is_lockstep(run: Run) -> bool:
    """Whether its ranks wait for each other."""
    return bool(run.result.config["group"]["kind"] == GroupKind.lockstep.value)


def finished(requests: polars.DataFrame) -> dict[str, np.ndarray]:
    """Columns of the finished requests of ``requests.parquet`` that latencies are made of."""
    import polars

    rows = requests.filter(polars.col("outcome").cast(polars.String) == Outcome.finished.name)
    names = ("arrival_s", "first_token_s", "finish_s", "prompt_tokens", "output_tokens")
    return {name: rows[name].to_numpy() for name in names}
