"""Cuts a run into windows of equal length and says what each was like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.backends.base import Records
from dpbal.modes import GroupKind

WINDOWS = 100


@dataclass(frozen=True)
class Series:
    """What each window of a run was like, from the first arrival to the last step's end.

    All but ``straggler_share`` are means over time. ``running``, ``waiting`` and ``kv_used_tokens``
    are what a rank had at the end of a step, taken for all of the step; a rank that makes no step
    has none. A run without any step has no window.

    Attributes:
        time_s: ``float64[windows]``, middle of each, on the backend's clock.
        running: ``float64[windows, ranks]``, requests in the batch.
        waiting: ``float64[windows, ranks]``, requests of a rank that are not in its batch.
        kv_used_tokens: ``float64[windows, ranks]``, KV slots in use, whole blocks.
        straggler_share: ``float64[windows]``, share of rank time spent waiting for the slowest
            rank; nan where no rank worked, and 0 in an independent group.
        outstanding: ``float64[windows]``, requests in flight: dispatched and not yet ended.
    """

    time_s: np.ndarray
    running: np.ndarray
    waiting: np.ndarray
    kv_used_tokens: np.ndarray
    straggler_share: np.ndarray
    outstanding: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """Every series by a name, ``float64[windows]`` each, for places that know only numbers.

        ``load/rank_03/requests`` is running + waiting, ``queue_requests`` is waiting over all
        ranks, and ``in_flight_requests`` is ``outstanding``.
        """
        ranks = self.running.shape[1]
        digits = len(str(ranks - 1))
        columns = {
            "time_s": self.time_s,
            "straggler_share": self.straggler_share,
            "queue_requests": self.waiting.sum(axis=1),
            "in_flight_requests": self.outstanding,
        }
        requests = self.running + self.waiting
        for rank in range(ranks):
            load = f"load/rank_{rank:0{digits}}"
            columns[f"{load}/requests"] = requests[:, rank]
            columns[f"{load}/kv_used_tokens"] = self.kv_used_tokens[:, rank]
        return columns


def series(records: Records, windows: int = WINDOWS) -> Series:
    """Cut a run into ``windows`` of equal length."""
    steps = records.steps
    if len(steps) == 0:
        windows = 0
    start_s = float(records.requests["arrival_s"][0]) if len(records.requests) else 0.0
    end_s = float(steps["end_s"].max()) if len(steps) else start_s
    edges_s = np.linspace(start_s, end_s, windows + 1)
    width_s = (end_s - start_s) / windows if windows else 1.0
    loads = {
        field: np.zeros((windows, records.ranks))
        for field in ("running", "waiting", "kv_used_tokens")
    }
    by_rank = np.argsort(steps["rank"], kind="stable")
    ends = np.cumsum(np.bincount(steps["rank"], minlength=records.ranks))
    for rank, own in enumerate(np.split(by_rank, ends[:-1])):
        rows = steps[own]
        lasted_s = rows["end_s"] - rows["start_s"]
        for field, load in loads.items():
            amounts = rows[field] * lasted_s
            load[:, rank] = _spread(edges_s, rows["start_s"], rows["end_s"], amounts) / width_s
    return Series(
        time_s=(edges_s[:-1] + edges_s[1:]) / 2,
        straggler_share=_straggler_share(records, edges_s),
        outstanding=_outstanding(records.requests, edges_s) / width_s,
        **loads,
    )


def _spread(
    edges_s: np.ndarray, start_s: np.ndarray, end_s: np.ndarray, amounts: np.ndarray
) -> np.ndarray:
    """What falls into each window of amounts that are spread evenly over steps, one at a time."""
    if len(amounts) == 0:
        return np.zeros(len(edges_s) - 1)
    total = np.concatenate([[0.0], np.cumsum(amounts)])
    times_s = np.column_stack([start_s, end_s]).ravel()
    until = np.column_stack([total[:-1], total[1:]]).ravel()
    return np.diff(np.interp(edges_s, times_s, until))


def _straggler_share(records: Records, edges_s: np.ndarray) -> np.ndarray:
    """As ``metrics.straggler_share``; a step that spans windows gives each its part."""
    if records.kind is not GroupKind.lockstep:
        return np.zeros(len(edges_s) - 1)
    steps = records.steps[:: records.ranks]
    local_s = records.steps["local_s"].reshape(-1, records.ranks)
    mean_s = _spread(edges_s, steps["start_s"], steps["end_s"], local_s.mean(axis=1))
    longest_s = _spread(edges_s, steps["start_s"], steps["end_s"], local_s.max(axis=1))
    share = np.full(len(mean_s), np.nan)
    np.divide(longest_s - mean_s, longest_s, out=share, where=longest_s > 0)
    return share


def _outstanding(requests: np.ndarray, edges_s: np.ndarray) -> np.ndarray:
    """Request-seconds in each window between dispatch and end."""
    dispatched = requests[requests["rank"] >= 0]
    ended_s = dispatched["finish_s"][~np.isnan(dispatched["finish_s"])]
    since = _elapsed(edges_s, dispatched["dispatch_s"]) - _elapsed(edges_s, ended_s)
    return np.asarray(np.diff(since).clip(min=0.0))


def _elapsed(edges_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Seconds gone by since each of ``times_s``, summed, at every edge."""
    ordered_s = np.sort(times_s) - edges_s[0]  # small numbers keep the sums exact
    total_s = np.concatenate([[0.0], np.cumsum(ordered_s)])
    passed = np.searchsorted(ordered_s, edges_s - edges_s[0], side="right")
    return np.asarray(passed * (edges_s - edges_s[0]) - total_s[passed])
