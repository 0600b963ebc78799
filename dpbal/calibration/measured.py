"""Reads steps that engines measured, from dpbal's own records or from a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from dpbal.backends.vllm.recorder import ENGINE_STEP
from dpbal.calibration.reading import read_table, require_numbers
from dpbal.calibration.samples import WORK, Samples
from dpbal.errors import ConfigError
from dpbal.modes import GroupKind

COLUMNS = (
    f"columns: {', '.join(WORK)}, step_s (or start_s and end_s), rank and step (of a lockstep "
    "group), local_s (if it was measured)"
)


def read(paths: Sequence[Path], kind: GroupKind, dilation: float) -> Samples:
    """The steps of all files together.

    Args:
        paths: Csv or parquet files with a row a rank and step, or folders into which engines wrote
            their steps (``DPBAL_RECORDS``).
        kind: In a lockstep group, rows of the same step number of a file belong together.
        dilation: How many times slower than the profile the clock of ``step_s`` ran; 1 on GPUs.

    Raises:
        ConfigError: For a file that is not there, lacks a column, or holds something else in it.
    """
    parts = [_group(_table(path, kind), path, kind) for path in paths]
    ranks = max(part.work.shape[1] for part in parts)
    work = np.concatenate([_widen(part.work, ranks) for part in parts])
    step_s = np.concatenate([part.step_s for part in parts]) / dilation
    measured = [part.local_s for part in parts if part.local_s is not None]
    if len(measured) < len(parts):
        return Samples(work, step_s)
    return Samples(work, step_s, np.concatenate([_widen(local_s, ranks) for local_s in measured]))


def _table(path: Path, kind: GroupKind) -> pl.DataFrame:
    if path.is_dir():
        files = sorted(path.glob("steps.[0-9]*"))
        if not files:
            raise ConfigError(f"no steps of engines in {path}; expected steps.0, steps.1, ...")
        rows = np.concatenate([np.fromfile(file, ENGINE_STEP) for file in files])
        names = rows.dtype.names or ()
        table = pl.DataFrame({name: rows[name] for name in names})
        is_late = pl.col("is_late")
        if (
            kind is GroupKind.lockstep
        ):  # without one of its ranks a step would seem to leave it idle
            is_late = is_late.any().over("number")
        return table.filter(~is_late).rename({"number": "step"})
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; give a csv or parquet file, or a folder")
    return read_table(path)


def _group(table: pl.DataFrame, path: Path, kind: GroupKind) -> Samples:
    if "step_s" not in table.columns and {"start_s", "end_s"} <= {*table.columns}:
        table = table.with_columns(step_s=pl.col("end_s") - pl.col("start_s"))
    of_group = ("rank", "step") if kind is GroupKind.lockstep else ()
    missing = [name for name in (*WORK, "step_s", *of_group) if name not in table.columns]
    if missing:
        raise ConfigError(f"{path} has no column {', '.join(missing)}; {COLUMNS}")
    numbers = [*WORK, "step_s", *of_group, *(["local_s"] if "local_s" in table.columns else [])]
    require_numbers(table, str(path), numbers)
    for name in numbers:
        if (table[name] < 0).any():
            raise ConfigError(f"column {name} of {path} has a negative number, {table[name].min()}")
    table = table.filter(pl.col("prefill_tokens") + pl.col("decode_seqs") > 0)
    if table.is_empty():
        raise ConfigError(f"{path} holds no step with tokens")
    if (table["step_s"] == 0).any():
        raise ConfigError(f"column step_s of {path} has a step that took no time")
    if "local_s" in table.columns and (table["local_s"] == 0).any():
        raise ConfigError(f"column local_s of {path} has a rank with tokens that took no time")
    if kind is GroupKind.independent:
        steps, ranks = np.arange(len(table)), np.zeros(len(table), np.int64)
    else:
        _, steps = np.unique(table["step"].to_numpy(), return_inverse=True)
        ranks = table["rank"].to_numpy().astype(np.int64)
        if len(np.unique(np.stack([steps, ranks]), axis=1).T) < len(table):
            raise ConfigError(f"{path} has two rows of the same step and rank")
    shape = (steps.max() + 1, ranks.max() + 1)
    work = np.zeros((*shape, len(WORK)))
    work[steps, ranks] = table.select(WORK).to_numpy()
    step_s = np.zeros(shape[0])
    np.maximum.at(step_s, steps, table["step_s"].to_numpy())
    if "local_s" not in table.columns:
        return Samples(work, step_s)
    local_s = np.zeros(shape)
    local_s[steps, ranks] = table["local_s"].to_numpy()
    return Samples(work, step_s, local_s)


def _widen(rows: np.ndarray, ranks: int) -> np.ndarray:
    """Idle ranks on the right, up to so many."""
    return np.pad(rows, [(0, 0), (0, ranks - rows.shape[1]), *[(0, 0)] * (rows.ndim - 2)])
