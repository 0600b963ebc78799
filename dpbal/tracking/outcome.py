"""What a tracker is told of a run that has ended well; worked out only as far as it asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dpbal.backends.base import Records
from dpbal.config import Slo
from dpbal.metrics import latencies
from dpbal.results import CLOSED
from dpbal.tracking.series import Series, series

NOT_NUMBERS = ("config", "seed", "versions")
"""Parts of a summary that a tracker has from the run's config."""

REFERENCES = {"baseline": "round robin", "pooled": "pooled"}
"""Parts of a summary that other runs on the same requests have left."""

POINTS = 101
"""Quantiles that a distribution is drawn through."""


@dataclass(frozen=True)
class Table:
    """Rows of values under names; a value that was not measured is None.

    Attributes:
        columns: The names.
        rows: One value a column.
    """

    columns: list[str]
    rows: list[list[str | float | None]]


@dataclass(frozen=True)
class Figure:
    """Lines over a common axis.

    Attributes:
        title: What it shows.
        x: What the axis counts, with its unit.
        y: What the lines count, with its unit.
        lines: Points of each, ``float64[n]`` along the axis and as many across.
    """

    title: str
    x: str
    y: str
    lines: dict[str, tuple[np.ndarray, np.ndarray]]


class RunOutcome:
    """What came of a run.

    Args:
        summary: What ``result.json`` holds.
        records: The run's, and behind it those of its references, each under the name to show.
        slo: What makes a request good.
    """

    def __init__(self, summary: dict[str, Any], records: Mapping[str, Records], slo: Slo) -> None:
        self._summary = summary
        self._records = records
        self._slo = slo

    @property
    def summary(self) -> dict[str, float | int | bool | str]:
        """``result.json`` in one level, ``pooled/ttft_s/mean``, without what was not measured."""
        return flat({k: v for k, v in self._summary.items() if k not in NOT_NUMBERS})

    @cached_property
    def series(self) -> Series:
        """The run itself in windows of time."""
        return series(self._run)

    @property
    def tables(self) -> dict[str, Table]:
        """``ranks`` with totals of each, and ``comparison`` where references have run."""
        sides = {label: self._summary[key] for key, label in REFERENCES.items()}
        references = {label: side for label, side in sides.items() if side is not None}
        tables = {"ranks": rank_totals(self._run)}
        if references:
            tables["comparison"] = self._comparison(references)
        return tables

    @property
    def figures(self) -> dict[str, Figure]:
        """Distributions beside those of the references, and how far apart the ranks' loads are."""
        kv = self.series.kv_used_tokens
        spread = {"fullest": kv.max(axis=1), "mean": kv.mean(axis=1), "emptiest": kv.min(axis=1)}
        time_s = self.series.time_s
        return {
            "ttft": self._distribution("Time to first token", "TTFT, s", "ttft_s"),
            "e2e": self._distribution("End-to-end latency", "E2E, s", "e2e_s"),
            "kv_used": Figure(
                title="KV cache in use, over the ranks",
                x="time, s",
                y="tokens",
                lines={name: (time_s, values) for name, values in spread.items()},
            ),
        }

    @property
    def _run(self) -> Records:
        return next(iter(self._records.values()))

    def _comparison(self, references: dict[str, Any]) -> Table:
        sides = [flat(side) for side in (self._summary, *references.values())]
        closed = {
            "/".join(CLOSED[name]): share
            for name, share in (self._summary["gap_closed"] or {}).items()
        }
        metrics = dict.fromkeys(metric for side in sides[1:] for metric in side)
        rows: list[list[str | float | None]] = [
            [metric, *(_number(side.get(metric)) for side in sides), closed.get(metric)]
            for metric in metrics
            if any(_number(side.get(metric)) is not None for side in sides)
        ]
        return Table(["metric", next(iter(self._records)), *references, "gap closed"], rows)

    def _distribution(self, title: str, x: str, field: str) -> Figure:
        shares = np.linspace(0, 1, POINTS)
        lines = {}
        for label, records in self._records.items():
            values = getattr(latencies(records, self._slo), field)
            if len(values):
                lines[label] = (np.quantile(values, shares), shares)
        return Figure(title, x, "share of requests", lines)


def flat(nested: Mapping[str, Any], above: str = "") -> dict[str, float | int | bool | str]:
    """Nested values in one level, under names joined by ``/``, without those that are None.

    >>> flat({"ttft_s": {"mean": 0.5, "p99": None}, "no_effect": ["signal", "transport"]})
    {'ttft_s/mean': 0.5, 'no_effect': 'signal; transport'}
    """
    result: dict[str, float | int | bool | str] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{above}{key}/")
        elif isinstance(value, list):
            result[above + key] = "; ".join(map(str, value))
        elif value is not None:
            result[above + key] = value
    return result


def _number(value: float | str | None) -> float | None:
    return None if isinstance(value, bool | str | None) else float(value)


def rank_totals(records: Records) -> Table:
    """What each rank did in all of a run; ``busy_s`` are the seconds of its own part of steps."""

    def per_rank(rows: np.ndarray, field: str | None = None) -> np.ndarray:
        weights = None if field is None else rows[field]
        return np.bincount(rows["rank"], weights, minlength=records.ranks)

    requests = records.requests[records.requests["rank"] >= 0]
    steps = records.steps
    columns = {
        "rank": np.arange(records.ranks),
        "requests": per_rank(requests),
        "prompt_tokens": per_rank(requests, "prompt_tokens"),
        "cached_tokens": per_rank(requests, "cached_tokens"),
        "output_tokens": per_rank(requests, "output_tokens"),
        "preemptions": per_rank(requests, "preemptions"),
        "steps": per_rank(steps),
        "busy_s": per_rank(steps, "local_s"),
    }
    rows = np.column_stack(list(columns.values())).astype(float)
    return Table(list(columns), rows.tolist())
