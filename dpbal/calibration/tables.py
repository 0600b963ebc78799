"""Reads measured times of single operators from a folder in AIConfigurator's layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from dpbal.calibration.reading import read_table, require_numbers
from dpbal.errors import ConfigError, unknown

SUFFIXES = (".parquet", ".csv", ".txt")
"""Of a table; the last is a csv as well."""

ROWS = 8192
"""Rows of the product whose time gives the rate of all."""

BF16_BYTES = 2

WEIGHT_BYTES = {
    "bfloat16": BF16_BYTES,
    "float16": 2,
    "fp8": 1,
    "fp8_block": 1,
    "sq": 1,  # SmoothQuant, int8
    "int8_wo": 1,
    "int4_wo": 1 / 2,
    "nvfp4": 1 / 2 + 1 / 16,  # a scale of one byte for 16 numbers
}
"""Of a number, by its type's name in the tables; scales of 128 numbers and more are left out."""

LAUNCH_S = 3e-6
"""Seconds of a kernel that does next to nothing."""

BANDWIDTH_SHARE = 0.8
"""Of the memory's nominal bandwidth, what an element-wise kernel reaches."""


class Curve:
    """Seconds over one size, straight between measured points and beyond the last two.

    Args:
        sizes: Of the measurements, in any order; seconds of equal ones are averaged.
        seconds: Their seconds.
    """

    def __init__(self, sizes: np.ndarray, seconds: np.ndarray) -> None:
        self._sizes, which = np.unique(np.asarray(sizes, float), return_inverse=True)
        self._seconds = np.bincount(which, seconds) / np.bincount(which)

    def __call__(self, size: float) -> float:
        """Seconds at a size; below the smallest, those of the smallest."""
        sizes, seconds = self._sizes, self._seconds
        if size <= sizes[-1] or len(sizes) == 1:
            return float(np.interp(size, sizes, seconds))
        slope = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])
        return float(seconds[-1] + slope * (size - sizes[-1]))


@dataclass(frozen=True)
class Product:
    """A matrix product: the longer of reading its weights and of computing.

    The rate is that of the table's ``ROWS`` rows. Its times of few rows are not used: those of fp8
    have a floor of 60 to 90 us that is the host's, three of them take longer than the measured
    attention module that contains them.

    Attributes:
        weights_s: Seconds to read the weights.
        row_s: Seconds to compute a row.
    """

    weights_s: float
    row_s: float

    def __call__(self, rows: float) -> float:
        """Seconds of the product of so many rows."""
        return max(self.weights_s, self.row_s * rows)


@dataclass(frozen=True)
class Tables:
    """The operator tables of one system.

    Args:
        folder: Of the system's data, such as ``systems/data/h200_sxm`` in AIConfigurator's package;
            a table is ``*/ENGINE/VERSION/NAME.parquet`` below it (or csv), and the newest counts.
            ``systems/h200_sxm.yaml``, two folders up, gives the memory's bandwidth.
        engine: Whose kernels, such as ``vllm``.
    """

    folder: Path
    engine: str

    def rows(self, name: str, numbers: tuple[str, ...], **where: str | int) -> pl.DataFrame:
        """The rows of a table that have these values in these columns.

        Args:
            name: Of the table.
            numbers: Columns that must hold numbers, besides ``latency``.
            where: Value of each column.

        Raises:
            ConfigError: If there is no such table, no such column, or no such row, or if a column
                holds text instead of numbers or numbers instead of text.
        """
        table, title = self._read(name), f"table {name} below {self.folder}"
        numbers = (*numbers, "latency")
        missing = [column for column in (*where, *numbers) if column not in table.columns]
        if missing:
            raise ConfigError(
                f"{title} has no column {', '.join(missing)}; it has {', '.join(table.columns)}"
            )
        for column, value in where.items():
            if table[column].dtype.is_numeric() != isinstance(value, int):
                raise ConfigError(
                    f"column {column} of {title} holds {table[column].dtype}, which has no {value}"
                )
        rows = table.filter(*(pl.col(column) == value for column, value in where.items()))
        if rows.is_empty():
            given = ", ".join(f"{column}={value}" for column, value in where.items())
            raise ConfigError(f"{title} has no row with {given}")
        require_numbers(rows, title, list(numbers))
        if (rows["latency"] <= 0).any():
            raise ConfigError(f"column latency of {title} has a time that is not above 0")
        return rows

    def curve(self, name: str, size: str, unit_s: float = 1e-3, **where: str | int) -> Curve:
        """Seconds over the column ``size``, of rows whose latency counts units of ``unit_s``."""
        rows = self.rows(name, (size,), **where)
        return Curve(rows[size].to_numpy(), unit_s * rows["latency"].to_numpy())

    def product(self, dtype: str, n: int, k: int) -> Product:
        """A product of ``[m, k]`` and ``[k, n]``.

        Between the widths of the table, and beyond them, the logarithm of its time is straight in
        the logarithm of the width.

        Raises:
            ConfigError: If the type is not known, or the table does not have what is needed.
        """
        if dtype not in WEIGHT_BYTES:
            raise ConfigError(unknown("type of weights", dtype, WEIGHT_BYTES))
        rows = self.rows("gemm_perf", ("m", "n", "k"), gemm_dtype=dtype).filter(pl.col("m") == ROWS)
        for column, width in (("n", n), ("k", k)):
            widths = rows[column].unique().to_list()
            if width not in widths and len(widths) < 2:
                raise ConfigError(
                    f"table gemm_perf below {self.folder} has no two widths {column} with "
                    f"gemm_dtype={dtype}, m={ROWS}, from which {column}={width} follows"
                )
        seconds_log = 0.0
        for n_at, n_share in _shares(rows["n"].unique().sort().to_list(), n):
            for k_at, k_share in _shares(rows["k"].unique().sort().to_list(), k):
                found = rows.filter(pl.col("n") == n_at, pl.col("k") == k_at)["latency"]
                if found.is_empty():
                    raise ConfigError(
                        f"table gemm_perf below {self.folder} has no row with "
                        f"gemm_dtype={dtype}, m={ROWS}, n={n_at}, k={k_at}"
                    )
                seconds_log += n_share * k_share * np.log(1e-3 * found.to_numpy().mean())
        weights_s = self.elementwise_s(n * k * WEIGHT_BYTES[dtype])
        return Product(weights_s, float(np.exp(seconds_log)) / ROWS)

    def elementwise_s(self, bytes_moved: float) -> float:
        """Seconds of a kernel that only moves bytes: by the memory's bandwidth, not measured."""
        return bytes_moved / (BANDWIDTH_SHARE * self._bytes_per_s) + LAUNCH_S

    @cached_property
    def _bytes_per_s(self) -> float:
        path = self.folder.parent.parent / f"{self.folder.name}.yaml"
        if not path.is_file():
            raise ConfigError(f"expected {path}, which says the memory's bandwidth (gpu.mem_bw)")
        try:
            system = OmegaConf.load(path)
            given = (
                OmegaConf.select(system, "gpu.mem_bw") if isinstance(system, DictConfig) else None
            )
        except (OmegaConfBaseException, YAMLError, OSError):
            given = None
        if not isinstance(given, int | float) or not 0 < given < float("inf"):
            raise ConfigError(f"{path} must give gpu.mem_bw, the memory's bytes a second, above 0")
        return float(given)

    def _read(self, name: str) -> pl.DataFrame:
        found = [
            path
            for suffix in SUFFIXES
            for path in self.folder.glob(f"**/{self.engine}/*/{name}{suffix}")
        ]
        if not found:
            raise ConfigError(
                f"no table {name} of {self.engine} below {self.folder}; expected "
                f"*/{self.engine}/VERSION/{name}.parquet as in AIConfigurator's systems/data/SYSTEM"
            )
        path = max(found, key=lambda path: _version(path.parent.name))
        return read_table(path)


def _shares(widths: list[int], width: int) -> list[tuple[int, float]]:
    """The two widths of a table nearest to one, with the weights of their logarithms."""
    if width in widths:
        return [(width, 1.0)]
    below, above = next(
        (pair for pair in pairwise(widths) if pair[0] < width < pair[1]),
        (widths[-2], widths[-1]) if width > widths[-1] else (widths[0], widths[1]),
    )
    share = float(np.log(width / below) / np.log(above / below))
    return [(below, 1 - share), (above, share)]


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))
