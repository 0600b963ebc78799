"""A small sweep's runs beside each other on the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpbal.config import KEYS
from dpbal.console import output

if TYPE_CHECKING:
    import polars

MOST = 20
"""Runs that a screen holds; more are for ``runs.csv`` and for ``dpbal-compare``."""

COLUMNS = (
    # heading, column of the table, scale, digits
    ("TTFT mean\n(s)", "ttft_s.mean", 1.0, 3),
    ("TTFT p99\n(s)", "ttft_s.p99", 1.0, 3),
    ("TPOT mean\n(ms)", "tpot_s.mean", 1e3, 1),
    ("E2E mean\n(s)", "e2e_s.mean", 1.0, 2),
    ("goodput\n(req/s)", "goodput_rps", 1.0, 2),
    ("straggler\nshare (%)", "straggler_share", 100.0, 1),
    ("capacity\n(load)", "load.mean", 1.0, 3),
    ("95 %\nfrom", "load.low", 1.0, 3),
    ("95 %\nto", "load.high", 1.0, 3),
    ("capacity\n(req/s)", "rate_rps.mean", 1.0, 2),
)
"""What came of a run, or of a capacity search."""


def show(frame: polars.DataFrame) -> None:
    """Print one line a run: what tells it from the others, and what came of it."""
    if not 1 < len(frame) <= MOST:
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    columns = [labels(frame)]
    for heading, key, scale, digits in COLUMNS:
        if key in frame.columns:
            table.add_column(heading, justify="right")
            columns.append([_cell(value, scale, digits) for value in frame[key]])
    if "verdict" in frame.columns:
        table.add_column("")
        columns.append(frame["verdict"].to_list())
    for cells in zip(*columns, strict=True):
        table.add_row(*cells)
    output().print(table)


def labels(frame: polars.DataFrame) -> list[str]:
    """What tells each run from the others, with no more than that takes: ``random seed=1``.

    Where no columns do, the names of the directories.
    """
    keys: list[str] = []
    groups = 1
    for key in [name for name in frame.columns if name.partition(".")[0] in KEYS]:
        parted = frame.select(*keys, key).n_unique()
        if parted > groups:
            keys.append(key)
            groups = parted
    if groups < len(frame):
        return frame["run"].to_list()
    return [
        " ".join(value if _is_name(key, value) else f"{key}={value}" for key, value in line.items())
        for line in frame.select(keys).to_dicts()
    ]


def _is_name(key: str, value: object) -> bool:
    return "." not in key and isinstance(value, str)


def _cell(value: float | None, scale: float, digits: int) -> str:
    return "-" if value is None else f"{value * scale:,.{digits}f}"
