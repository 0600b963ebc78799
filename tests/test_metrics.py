"""The numbers of a run that is written down by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dpbal.backends.base import REQUEST_RECORD, STEP_RECORD, Outcome, Records
from dpbal.config import Slo
from dpbal.metrics import Metrics, is_unstable, summarise
from dpbal.modes import GroupKind
from dpbal.results import gap_closed

SLO = Slo(ttft_s=1.0, ttft_s_per_prompt_token=0.001, tpot_s=0.5)
NAN = math.nan


def requests_of(rows: list[dict[str, Any]]) -> np.ndarray:
    table = np.zeros(len(rows), REQUEST_RECORD)
    table["first_token_s"] = NAN
    table["finish_s"] = NAN
    table["outcome"] = Outcome.finished
    for record, row in zip(table, rows, strict=True):
        for field, value in row.items():
            record[field] = value
    return table


def steps_of(rows: list[dict[str, Any]]) -> np.ndarray:
    table = np.zeros(len(rows), STEP_RECORD)
    for record, row in zip(table, rows, strict=True):
        for field, value in row.items():
            record[field] = value
    return table


def records_of(
    requests: np.ndarray,
    steps: np.ndarray,
    late_gaps_s: list[float] | None = None,
    kind: GroupKind = GroupKind.lockstep,
) -> Records:
    return Records(
        requests=requests,
        steps=steps,
        late_gaps_s=np.array(late_gaps_s or [], np.float64),
        decision_ns=np.zeros(len(requests), np.int64),
        wall_s=1.0,
        ranks=2,
        kind=kind,
    )


REQUESTS = requests_of(
    [
        # TTFT 1.1 s of 1.1 allowed, TPOT 0.5: good, on both limits
        dict(arrival_s=1.0, first_token_s=2.1, finish_s=4.1, prompt_tokens=100, output_tokens=5),
        # TTFT 2 s of 1.2 allowed: late
        dict(arrival_s=2.0, first_token_s=4.0, finish_s=4.5, prompt_tokens=200, output_tokens=2),
        # TPOT 1 s: slow
        dict(arrival_s=3.0, first_token_s=3.5, finish_s=5.5, prompt_tokens=100, output_tokens=3),
        # one token has no TPOT, and is good by its TTFT alone
        dict(arrival_s=4.0, first_token_s=4.2, finish_s=4.2, prompt_tokens=100, output_tokens=1),
        dict(arrival_s=5.0, finish_s=5.0, prompt_tokens=9, outcome=Outcome.failed),
        dict(arrival_s=6.0, first_token_s=6.5, prompt_tokens=91, output_tokens=1, outcome=0),
    ]
)
STEPS = steps_of(
    [
        dict(start_s=1.0, end_s=3.0, rank=0, local_s=1.0, next_tokens=3),
        dict(start_s=1.0, end_s=3.0, rank=1, local_s=0.5),
        dict(start_s=3.0, end_s=9.0, rank=0, local_s=0.0, next_tokens=0),
        dict(start_s=3.0, end_s=9.0, rank=1, local_s=3.0, next_tokens=6),
    ]
)


@pytest.fixture
def summary() -> dict[str, Any]:
    return dict(summarise(records_of(REQUESTS, STEPS, [10.0]), SLO))


def test_every_request_is_counted_under_its_outcome(summary: dict[str, Any]) -> None:
    assert summary["requests"] == {
        "offered": 6,
        "finished": 4,
        "failed": 1,
        "aborted": 0,
        "unfinished": 1,
    }


def test_latencies_are_those_of_finished_requests(summary: dict[str, Any]) -> None:
    assert summary["ttft_s"]["mean"] == pytest.approx((1.1 + 2.0 + 0.5 + 0.2) / 4)
    assert summary["ttft_s"]["p50"] == pytest.approx((0.5 + 1.1) / 2)
    assert summary["e2e_s"]["mean"] == pytest.approx((3.1 + 2.5 + 2.5 + 0.2) / 4)
    assert summary["tpot_s"]["mean"] == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    assert summary["tpot_s"]["p90"] == pytest.approx(0.9)


def test_gaps_between_tokens_are_pooled_and_late_ones_among_them(summary: dict[str, Any]) -> None:
    assert summary["itl_s"]["mean"] == pytest.approx((3 * 2.0 + 6 * 6.0 + 10.0) / 10)
    assert summary["itl_s"]["p50"] == 6.0
    assert summary["itl_s"]["p90"] == 6.0
    assert summary["itl_s"]["p99"] == 10.0


def test_rates_are_over_first_arrival_to_last_step(summary: dict[str, Any]) -> None:
    assert summary["duration_s"] == pytest.approx(8.0)
    assert summary["output_tokens_per_s"] == pytest.approx(12 / 8)
    assert summary["goodput_rps"] == pytest.approx(2 / 8)
    assert summary["good_share"] == pytest.approx(2 / 6)


def test_straggler_share_weighs_steps_by_their_slowest_rank(summary: dict[str, Any]) -> None:
    assert summary["straggler_share"] == pytest.approx(1 - (0.75 + 1.5) / (1.0 + 3.0))
    apart = summarise(records_of(REQUESTS, STEPS, kind=GroupKind.independent), SLO)
    assert apart["straggler_share"] == 0


def test_what_was_not_measured_is_null() -> None:
    nobody = requests_of([dict(arrival_s=0.0, outcome=Outcome.failed)])
    empty: dict[str, Any] = dict(summarise(records_of(nobody, steps_of([])), SLO))
    nothing = {"mean": None, "p50": None, "p90": None, "p99": None}
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        assert empty[name] == nothing
    assert empty["goodput_rps"] is None
    assert empty["straggler_share"] == 0


def waits(seconds: list[float]) -> Records:
    """Requests a second apart with these times to first token."""
    rows = [
        dict(arrival_s=float(k), first_token_s=k + wait_s, finish_s=k + wait_s)
        for k, wait_s in enumerate(seconds)
    ]
    return records_of(requests_of(rows), steps_of([]))


def test_a_queue_that_grows_all_along_is_unstable() -> None:
    assert is_unstable(waits([0.001 * k * k for k in range(400)]))
    assert is_unstable(waits([0.5 * k for k in range(400)]))  # a fifth too much, from empty
    assert not is_unstable(waits([1.0] * 400))
    assert not is_unstable(waits([0.5 * min(k, 400 - k) for k in range(400)]))  # a burst
    assert not is_unstable(waits([0.01] * 300 + [1.0] * 100))  # long compared with nothing


def test_requests_that_never_got_a_token_make_a_run_unstable() -> None:
    records = waits([1.0] * 400)
    records.requests["first_token_s"][390:] = NAN  # a stable run, cut off in the middle
    records.requests["outcome"][390:] = Outcome.unfinished
    assert not is_unstable(records)
    records.requests["first_token_s"][110:] = NAN  # most never had their turn
    records.requests["outcome"][110:] = Outcome.unfinished
    assert is_unstable(records)
    records.requests["outcome"][110:] = Outcome.failed  # refused, not kept waiting
    assert not is_unstable(records)


def metrics_of(mean: float | None, p99: float | None = 2.0) -> Metrics:
    spread: dict[str, float | None] = {"mean": mean, "p50": 1.0, "p90": 1.0, "p99": p99}
    return {
        "requests": {"finished": 10},
        "ttft_s": spread,
        "tpot_s": dict(spread),
        "e2e_s": dict(spread),
    }


def test_gap_closed_is_a_share_of_what_pooling_would_gain() -> None:
    closed = gap_closed(metrics_of(6.0, 9.0), metrics_of(10.0, 9.0), metrics_of(5.0, 4.5), False)
    assert closed == {
        "ttft_mean": pytest.approx(0.8),
        "ttft_p99": pytest.approx(0.0),
        "tpot_mean": pytest.approx(0.8),
        "e2e_mean": pytest.approx(0.8),
    }


def test_gap_closed_is_null_where_not_the_same_requests_finished() -> None:
    policy = metrics_of(6.0) | {"requests": {"finished": 9}}
    closed = gap_closed(policy, metrics_of(10.0), metrics_of(5.0), False)
    assert set(closed.values()) == {None}


def test_gap_closed_may_be_over_one_or_under_zero() -> None:
    closed = gap_closed(metrics_of(4.0, 12.0), metrics_of(10.0, 9.0), metrics_of(5.0, 4.5), False)
    assert closed["ttft_mean"] == pytest.approx(1.2)
    assert closed["ttft_p99"] == pytest.approx(-2 / 3)


@pytest.mark.parametrize(
    ("policy", "baseline", "pooled", "unstable"),
    [
        (6.0, 10.0, 5.0, True),  # round robin's own number means nothing
        (9.8, 10.0, 9.6, False),  # a gap of 4 %
        (9.0, 10.0, 11.0, False),  # pooled is worse
        (None, 10.0, 5.0, False),
        (6.0, None, 5.0, False),
        (6.0, 10.0, None, False),
        (0.0, 0.0, 0.0, False),
    ],
)
def test_gap_closed_is_null_where_it_says_nothing(
    policy: float | None, baseline: float | None, pooled: float | None, unstable: bool
) -> None:
    closed = gap_closed(metrics_of(policy), metrics_of(baseline), metrics_of(pooled), unstable)
    assert closed["ttft_mean"] is None
