"""How a run ends for requests that cannot be served, or not in time."""

from __future__ import annotations

import numpy as np
import pytest

from dpbal.backends.base import Outcome
from dpbal.backends.simulator.simulator import Simulator
from dpbal.modes import GroupKind
from dpbal.step_time import StepTime
from tests.simulator.runs import simulate, workload

STEP_TIME = StepTime(fixed_s=0.01, prefill_s_per_token=1e-5)


@pytest.mark.parametrize("kind", GroupKind)
def test_a_request_larger_than_the_kv_cache_fails_and_the_rest_finishes(kind: GroupKind) -> None:
    rows = [(0.0, 50, 5), (0.001, 65, 1), (0.002, 60, 6), (0.003, 60, 5), (0.004, 64, 1)]
    engine = Simulator(block_size=16, kv_capacity_tokens=64)
    run = simulate(workload(rows), STEP_TIME, kind=kind, engine=engine)
    # the last token of an answer is never in the cache: 60 + 5 fits 64 slots, 60 + 6 does not
    outcomes = [Outcome(value).name for value in run.requests["outcome"]]
    assert outcomes == ["finished", "failed", "failed", "finished", "finished"]
    failed = run.requests["outcome"] == Outcome.failed
    assert np.isnan(run.requests["first_token_s"][failed]).all()
    assert not run.requests["output_tokens"][failed].any()
    (dispatcher,) = run.parts.dispatchers
    assert dispatcher.ledger.outstanding.tolist() == [0]


def test_a_group_that_only_gets_what_it_cannot_hold_stays_idle() -> None:
    engine = Simulator(kv_capacity_tokens=64)
    run = simulate(workload([(0.0, 100, 1), (1.0, 100, 1)]), STEP_TIME, engine=engine)
    assert (run.requests["outcome"] == Outcome.failed).all()
    assert len(run.steps) == 0
    assert not run.parts.dispatchers[0].ledger.in_flight.requests.any()


@pytest.mark.parametrize("kind", GroupKind)
def test_the_clock_stops_at_max_time(kind: GroupKind) -> None:
    rows = [(0.0, 10, 2), (0.001, 10, 1000), (0.5, 10, 1), (2.0, 10, 1)]
    whole = simulate(workload(rows), STEP_TIME, kind=kind)
    cut = simulate(workload(rows), STEP_TIME, kind=kind, engine=Simulator(max_time_s=1.0))
    outcomes = [Outcome(value).name for value in cut.requests["outcome"]]
    assert outcomes == ["finished", "unfinished", "finished", "unfinished"]
    assert cut.steps.tobytes() == whole.steps[whole.steps["end_s"] <= 1.0].tobytes()

    running, never = cut.requests[1], cut.requests[3]
    assert running["first_token_s"] == whole.requests["first_token_s"][1]
    assert 90 < running["output_tokens"] < 100
    assert np.isnan(running["finish_s"])
    assert np.isnan(never["first_token_s"])
    assert len(cut.records.decision_ns) == 3  # nobody decided where the last one goes


def test_max_time_before_the_first_arrival() -> None:
    run = simulate(workload([(5.0, 10, 1)]), STEP_TIME, engine=Simulator(max_time_s=1.0))
    assert run.requests["outcome"].tolist() == [Outcome.unfinished]
    assert len(run.steps) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(max_num_seqs=0), "max_num_seqs must be at least 1, got 0"),
        (dict(max_num_batched_tokens=0), "max_num_batched_tokens must be at least 1, got 0"),
        (dict(block_size=0), "block_size must be at least 1, got 0"),
        (dict(kv_capacity_tokens=15), "kv_capacity_tokens must hold a block of 16 tokens, got 15"),
    ],
)
def test_an_engine_that_could_not_run_is_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Simulator(**settings)  # type: ignore[arg-type]
