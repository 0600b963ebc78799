"""Turns the records of a run into the numbers people compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from dpbal.backends.base import Outcome, Records
from dpbal.config import Slo
from dpbal.modes import GroupKind

Metrics: TypeAlias = "dict[str, float | dict[str, float | None] | None]"

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class Latencies:
    """Latencies of the finished requests of a run.

    Attributes:
        ttft_s: ``float64[n]``, arrival to first token.
        e2e_s: ``float64[n]``, arrival to last token.
        tpot_s: ``float64[n]``, mean seconds of each token after the first; nan where there is none.
        is_good: ``bool[n]``, whether the request met the objectives.
    """

    ttft_s: np.ndarray
    e2e_s: np.ndarray
    tpot_s: np.ndarray
    is_good: np.ndarray


def latencies(records: Records, slo: Slo) -> Latencies:
    """Latencies of the finished requests, measured from their scheduled arrival."""
    rows = records.requests[records.requests["outcome"] == Outcome.finished]
    ttft_s, e2e_s, tpot_s = times_s(rows)
    is_good = are_good(ttft_s, tpot_s, rows["prompt_tokens"], slo)
    return Latencies(ttft_s, e2e_s, tpot_s, is_good)


def times_s(
    rows: np.ndarray | Mapping[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """TTFT, E2E and TPOT of finished requests, as ``Latencies`` has them.

    Args:
        rows: Of ``Records.requests``, or their columns by name.
    """
    ttft_s = rows["first_token_s"] - rows["arrival_s"]
    e2e_s = rows["finish_s"] - rows["arrival_s"]
    further = rows["output_tokens"] - 1
    tpot_s = np.full(len(ttft_s), np.nan)
    np.divide(e2e_s - ttft_s, further, out=tpot_s, where=further > 0)
    return ttft_s, e2e_s, tpot_s


def are_good(
    ttft_s: np.ndarray,
    tpot_s: np.ndarray,
    prompt_tokens: np.ndarray,
    slo: Slo,
    factor: float = 1.0,
) -> np.ndarray:
    """``bool[n]``, whether requests met the objectives, each of them times a factor."""
    allowed_s = slo.ttft_s + slo.ttft_s_per_prompt_token * prompt_tokens
    return (ttft_s <= factor * allowed_s) & ~(tpot_s > factor * slo.tpot_s)


def summarise(records: Records, slo: Slo) -> Metrics:
    """The metrics of one run, as ``result.json`` has them; None where nothing was measured.

    Time to first token and end-to-end latency count from the scheduled arrival. ITL pools the
    gaps between tokens of all requests, TPOT is a mean per request.
    """
    outcomes = records.requests["outcome"]
    lat = latencies(records, slo)
    span_s = duration_s(records)
    steps = records.steps
    return {
        "requests": {
            "offered": len(outcomes),
            **{outcome.name: int((outcomes == outcome).sum()) for outcome in _ORDER},
        },
        "ttft_s": _distribution(lat.ttft_s),
        "tpot_s": _distribution(lat.tpot_s[~np.isnan(lat.tpot_s)]),
        "itl_s": _itl(records),
        "e2e_s": _distribution(lat.e2e_s),
        "output_tokens_per_s": _per(records.requests["output_tokens"].sum(), span_s),
        "duration_s": span_s,
        "straggler_share": straggler_share(records),
        "goodput_rps": _per(lat.is_good.sum(), span_s),
        "good_share": _per(lat.is_good.sum(), len(outcomes)),
        "prefix_hit_share": _per(
            records.requests["cached_tokens"].sum(), records.requests["prompt_tokens"].sum()
        ),
        "preemptions": int(records.requests["preemptions"].sum()),
        "rank_steps": len(steps),
    }


_ORDER = (Outcome.finished, Outcome.failed, Outcome.aborted, Outcome.unfinished)


def duration_s(records: Records) -> float:
    """Seconds from the first arrival to the last step's end."""
    if len(records.steps) == 0:
        return 0.0
    return float(records.steps["end_s"].max() - records.requests["arrival_s"][0])


def straggler_share(records: Records) -> float:
    """Share of rank time spent waiting for the slowest rank: ``1 - mean/max`` of the local time.

    Steps are weighted by their longest local time, so that this is one ratio of sums. It is 0 in
    an independent group, where no rank waits for another.
    """
    if records.kind is not GroupKind.lockstep or len(records.steps) == 0:
        return 0.0
    local_s = records.steps["local_s"].reshape(-1, records.ranks)
    longest = local_s.max(axis=1).sum()
    return float(1 - local_s.mean(axis=1).sum() / longest) if longest > 0 else 0.0


def is_unstable(records: Records) -> bool:
    """Whether queues grew all along, as they do where more arrives than can be worked off.

    True when the median TTFT did not fall from any quarter of the dispatched requests to the next,
    rose by half and more from the second to the last (growth from nothing at a constant rate makes
    that 7/3), and ended over a tenth of the span of the arrivals. A passing burst does not rise all
    along. A request without a first token counts as one that waits for ever.
    """
    rows = records.requests
    rows = rows[(rows["outcome"] != Outcome.failed) & ~np.isnan(rows["dispatch_s"])]
    ttft_s = np.where(np.isnan(rows["first_token_s"]), np.inf, rows["first_token_s"])
    ttft_s = ttft_s - rows["arrival_s"]
    quarter = len(ttft_s) // 4
    if quarter == 0:
        return False
    medians_s = np.median(ttft_s[: 4 * quarter].reshape(4, quarter), axis=1)
    is_rising = (medians_s[1:] >= medians_s[:-1]).all()
    has_risen = medians_s[3] > 1.5 * medians_s[1] or np.isinf(medians_s[1])
    span_s = rows["arrival_s"][-1] - rows["arrival_s"][0]
    return bool(is_rising and has_risen and medians_s[3] > 0.1 * span_s)


def _distribution(values: np.ndarray) -> dict[str, float | None]:
    if len(values) == 0:
        return dict.fromkeys(("mean", *QUANTILES))
    points = np.quantile(values, list(QUANTILES.values()))
    return {"mean": float(values.mean()), **dict(zip(QUANTILES, points.tolist(), strict=True))}


def _itl(records: Records) -> dict[str, float | None]:
    """Gaps between tokens: most are a step long, so steps are weighted by the tokens they gave."""
    steps = records.steps[records.steps["next_tokens"] > 0]
    gaps_s = np.concatenate([steps["end_s"] - steps["start_s"], records.late_gaps_s])
    weights = np.concatenate([steps["next_tokens"], np.ones(len(records.late_gaps_s), np.int64)])
    if len(gaps_s) == 0:
        return dict.fromkeys(("mean", *QUANTILES))
    order = np.argsort(gaps_s, kind="stable")
    gaps_s, weights = gaps_s[order], weights[order]
    count = np.cumsum(weights)
    result: dict[str, float | None] = {"mean": float((gaps_s * weights).sum() / count[-1])}
    for name, quantile in QUANTILES.items():
        result[name] = float(gaps_s[np.searchsorted(count, quantile * count[-1])])
    return result


def _per(amount: float, base: float) -> float | None:
    return float(amount / base) if base > 0 else None
