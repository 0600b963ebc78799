"""What ranks hold after each step, and the prefill tokens of a step, as counters."""

from __future__ import annotations

from collections.abc import Iterator

import polars
from polars import col

from dpbal.report.trace.events import Event, Process, label, microseconds, track

UNITS = {
    Process.waiting: "requests",
    Process.running: "requests",
    Process.prefill: "tokens",
    Process.kv: "tokens",
}

HELD = {
    Process.waiting: "waiting",
    Process.running: "running",
    Process.kv: "kv_used_tokens",
}
"""Columns of ``steps.parquet`` that say how it was when a step ended."""


def events(steps: polars.DataFrame) -> Iterator[Event]:
    """For each quantity a counter of each rank, with an event wherever it changes."""
    for pid, column in HELD.items():
        yield from _counter(pid, steps.select("rank", at="end_s", value=column))
    yield from _counter(Process.prefill, _prefill(steps))


def _prefill(steps: polars.DataFrame) -> polars.DataFrame:
    """The tokens of a step while it lasts, and none between two steps."""
    during = steps.select("rank", at="start_s", value="prefill_tokens")
    next_start_s = col("start_s").shift(-1).over("rank")
    after = steps.filter(next_start_s.is_null() | (next_start_s > col("end_s"))).select(
        "rank", at="end_s", value=polars.lit(0, polars.Int32)
    )
    return polars.concat([during, after]).sort("at", maintain_order=True)


def _counter(pid: Process, values: polars.DataFrame) -> Iterator[Event]:
    changed = values.filter(col("value").ne_missing(col("value").shift().over("rank")))
    rows = changed.select("rank", microseconds(col("at")), "value").iter_rows()
    for rank, at, value in rows:
        yield Event("C", pid, track(rank), label(rank), at, args={UNITS[pid]: value})
