"""Reads a csv or parquet file; one that is neither is a mistake in one line."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from dpbal.errors import ConfigError

LFS_POINTER = b"version https://git-lfs"
"""How a file begins that git has not fetched yet."""


def read_table(path: Path) -> pl.DataFrame:
    """The rows of a file, by its suffix.

    Raises:
        ConfigError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
        if not is_pointer:
            return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    except (PolarsError, OSError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"cannot read {path} as csv or parquet: {why}") from error
    raise ConfigError(f"{path} is a git-lfs pointer, not the table; type git lfs pull")


def require_numbers(table: pl.DataFrame, name: str, columns: list[str]) -> None:
    """Refuse a table with anything but finite numbers in these columns.

    Args:
        table: That has these columns.
        name: What to call it.
        columns: That must hold numbers.

    Raises:
        ConfigError: With the first column that holds something else.
    """
    for column in columns:
        values = table[column]
        if not values.dtype.is_numeric() or values.has_nulls() or not values.is_finite().all():
            raise ConfigError(f"column {column} of {name} must hold a number in every row")
