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


def result(run: Run) -> dict[str, Any]:
    """The whole ``result.json``.

    Raises:
        ResultError: If an older dpbal wrote it.
    """
    path = run.directory / RESULT
    found: dict[str, Any] = json.loads(path.read_bytes())
    missing = [name for name in NEEDED if name not in found]
    if missing:
        raise ResultError(f"{path} has no {missing[0]}; run it again with this dpbal")
    return found


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
