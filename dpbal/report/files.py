"""The files of one run, read whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpbal.comparison.load import RESULT, ResultError, Run

if TYPE_CHECKING:
    import polars

REQUESTS, STEPS = "requests.parquet", "steps.parquet"

NEEDED = ("choices", "emulation")
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


def result(run: Run) -> dict[str, Any]:
    """The whole ``result.json``.

    Raises:
        ResultError: If an older dpbal wrote it.
    """
    path = run.directory / RESULT
    found: dict[str, Any] = json.loads(path.read_bytes())
    missing = [name for name in NEEDED if name not in found]
    missing += [lost for name in NEEDED_OF_CONFIG if (lost := _lost(found["config"], name))]
    if missing:
        raise ResultError(f"{path} has no {missing[0]}; run it again with this dpbal")
    return found


def _lost(config: dict[str, Any], name: str) -> str | None:
    """The part of a dotted name, from its beginning on, that a config does not have."""
    inner: Any = config
    parts = name.split(".")
    for place, key in enumerate(parts):
        if not isinstance(inner, dict) or key not in inner:
            return ".".join(parts[: place + 1])
        inner = inner[key]
    return None


def table(path: Path) -> polars.DataFrame:
    """A table of a run.

    Raises:
        ResultError: If it is damaged.
    """
    import polars

    try:
        return polars.read_parquet(path)
    except polars.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
        raise ResultError(f"{path} cannot be read: {reason}; run it again") from None
