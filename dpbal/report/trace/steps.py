"""The steps of each rank, and the part of each that it waited for the slowest rank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars
from polars import col

from dpbal.modes import GroupKind
from dpbal.report.trace.events import Args, Event, Process, microseconds, thread, track

SHOWN = ("prefill_tokens", "decode_seqs", "running", "waiting", "kv_used_tokens", "preemptions")
"""Columns of ``steps.parquet`` that stand beside a step."""


def events(steps: polars.DataFrame, kind: GroupKind, ranks: int) -> Iterator[Event]:
    """A track for each rank.

    A step is a slice named after what was in it. Inside a lockstep one, ``wait`` lasts from the end
    of the rank's own part to the end of the slowest rank's. A rank with nothing to do has no step;
    ``idle`` is as long as the slowest rank's part. So ``wait`` and ``idle`` together are the rank
    time that the straggler share counts.
    """
    for rank in range(ranks):
        yield from thread(Process.steps, rank)
    for start, end, done, slowest_done, slowest, name, rank, *values in _timed(steps, kind, ranks):
        args = dict(zip(SHOWN, values, strict=True))
        if name != "idle":
            yield _slice(rank, name, "step", start, end, args)
            if slowest_done > done:
                yield _slice(rank, "wait", "wait", done, slowest_done, {"slowest_rank": slowest})
        elif slowest_done > done:
            args["slowest_rank"] = slowest
            yield _slice(rank, name, "wait", start, slowest_done, args)


def _slice(rank: int, name: str, category: str, start: int, end: int, args: Args) -> Event:
    return Event("X", Process.steps, track(rank), name, start, end - start, category, None, args)


def _timed(steps: polars.DataFrame, kind: GroupKind, ranks: int) -> Iterator[tuple[Any, ...]]:
    """Start, end, end of the own part, end of the slowest rank's and its number; what it was."""
    if kind is GroupKind.lockstep:
        local_s = steps["local_s"].to_numpy().reshape(-1, ranks)
        longest_s = local_s.max(axis=1).repeat(ranks)
        slowest = steps["rank"].to_numpy().reshape(-1, ranks)[:, 0] + local_s.argmax(axis=1)
        slowest = slowest.repeat(ranks)
    else:  # nobody waits
        longest_s = steps["local_s"].to_numpy()
        slowest = steps["rank"].to_numpy()
    return steps.select(
        microseconds(col("start_s")).alias("start"),
        microseconds(col("end_s")).alias("end"),
        microseconds(col("start_s") + col("local_s")).alias("done"),
        microseconds(col("start_s") + polars.Series(longest_s)).alias("slowest_done"),
        polars.Series("slowest", slowest.astype(np.int64)),
        _name().alias("name"),
        col("rank"),
        *SHOWN,
    ).iter_rows()


def _name() -> polars.Expr:
    has_prefill, has_decode = col("prefill_tokens") > 0, col("decode_seqs") > 0
    return (
        polars.when(has_prefill & has_decode)
        .then(polars.lit("mixed"))
        .when(has_prefill)
        .then(polars.lit("prefill"))
        .when(has_decode)
        .then(polars.lit("decode"))
        .otherwise(polars.lit("idle"))
    )
