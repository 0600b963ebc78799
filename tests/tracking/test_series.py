from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dpbal
from dpbal.backends.base import REQUEST_RECORD, STEP_RECORD, Outcome, Records
from dpbal.experiment import Experiment
from dpbal.metrics import duration_s, straggler_share
from dpbal.modes import GroupKind
from dpbal.progress import Progress
from dpbal.tracking.series import Series, series

FIELDS = ("running", "waiting", "kv_used_tokens")


def run(*overrides: str) -> Records:
    config = dpbal.compose("workload.requests=300", "group.ranks=3", *overrides)
    return Experiment(config).run(Progress(False))


@pytest.fixture(scope="module", params=["lockstep", "independent"])
def records(request: pytest.FixtureRequest) -> Records:
    return run(f"group.kind={request.param}", "workload.load=0.5")


def made(
    requests: list[tuple[float, float]],
    steps: list[tuple[int, float, float, float, int]],
    ranks: int,
    kind: GroupKind,
) -> Records:
    """Records of requests (arrival, end) and steps (rank, start, end, local, running)."""
    request_rows = np.zeros(len(requests), REQUEST_RECORD)
    step_rows = np.zeros(len(steps), STEP_RECORD)
    for row, (arrival_s, finish_s) in zip(request_rows, requests, strict=True):
        row["arrival_s"] = row["dispatch_s"] = arrival_s
        row["finish_s"] = finish_s
        row["outcome"] = Outcome.unfinished if np.isnan(finish_s) else Outcome.finished
    for row, values in zip(step_rows, steps, strict=True):
        for name, value in zip(
            ("rank", "start_s", "end_s", "local_s", "running"), values, strict=True
        ):
            row[name] = value
    nothing = np.zeros(0)
    return Records(request_rows, step_rows, nothing, nothing, 1.0, ranks, kind)


def test_windows_of_a_run_that_one_can_work_out_by_hand() -> None:
    found = series(
        made(
            requests=[(0.0, 3.0), (1.0, 4.0), (2.0, np.nan)],
            steps=[
                *[(0, 0.0, 1.0, 1.0, 1), (1, 0.0, 1.0, 0.5, 0)],
                *[(0, 1.0, 3.0, 0.5, 2), (1, 1.0, 3.0, 2.0, 4)],
                *[(0, 3.5, 4.0, 0.0, 3), (1, 3.5, 4.0, 0.5, 1)],
            ],
            ranks=2,
            kind=GroupKind.lockstep,
        ),
        windows=2,
    )
    assert found.time_s.tolist() == [1.0, 3.0]
    # rank 0 has 1 for a second and 2 for another, then 2 for one, nothing for half, 3 for half
    assert found.running.tolist() == [[1.5, 2.0], [1.75, 2.25]]
    # seconds of the slowest: 1 and half of 2, the other half and 0.5; means 1.375 and 0.875
    assert found.straggler_share == pytest.approx([1 - 1.375 / 2, 1 - 0.875 / 1.5])
    # 2 + 1 request-seconds, then 1 + 2 + 2
    assert found.outstanding.tolist() == [1.5, 2.5]


def test_a_window_without_a_step_has_no_load_and_no_stragglers() -> None:
    steps = [(0, 0.0, 1.0, 1.0, 7), (0, 9.0, 10.0, 1.0, 7)]
    found = series(made([(0.0, 1.0), (9.0, 10.0)], steps, 1, GroupKind.lockstep), windows=10)
    assert found.running[:, 0].tolist() == [7, *[0] * 8, 7]
    assert np.isnan(found.straggler_share).tolist() == [False, *[True] * 8, False]
    assert found.outstanding == pytest.approx([1, *[0] * 8, 1])


def test_a_run_without_a_step_has_no_window() -> None:
    found = series(made([(0.0, 0.0)], [], 2, GroupKind.lockstep))
    assert {len(values) for values in found.columns().values()} == {0}


def test_requests_that_were_never_dispatched_are_not_in_flight() -> None:
    steps = [(0, 0.0, 4.0, 1.0, 1)]
    records = made([(0.0, 4.0), (1.0, np.nan), (2.0, np.nan)], steps, 1, GroupKind.independent)
    assert series(records, 4).outstanding.tolist() == [1, 2, 3, 3]
    records.requests["rank"][2] = -1
    assert series(records, 4).outstanding.tolist() == [1, 2, 2, 2]


def test_a_run_that_was_cut_off_holds_requests_until_its_end() -> None:
    records = run("backend.max_time_s=5", "workload.load=0.5")
    dispatched = records.requests[records.requests["rank"] >= 0]
    assert len(dispatched) < 200
    ends_s = np.where(np.isnan(dispatched["finish_s"]), np.inf, dispatched["finish_s"])
    held_s = np.minimum(ends_s, records.steps["end_s"].max()) - dispatched["dispatch_s"]
    assert series(records).outstanding.mean() * duration_s(records) == pytest.approx(held_s.sum())


def test_one_window_is_the_whole_run(records: Records) -> None:
    found = series(records, windows=1)
    assert found.straggler_share == pytest.approx([straggler_share(records)])
    held_s = records.requests["finish_s"] - records.requests["dispatch_s"]
    assert found.outstanding == pytest.approx([held_s.sum() / duration_s(records)])  # Little's law


@given(windows=st.integers(1, 40))
def test_every_window_holds_what_overlaps_it(records: Records, windows: int) -> None:
    steps = records.steps
    start_s = records.requests["arrival_s"][0]
    edges_s = np.linspace(start_s, steps["end_s"].max(), windows + 1)
    found = series(records, windows)
    for window, (begin_s, end_s) in enumerate(pairwise(edges_s)):
        shared_s = np.minimum(steps["end_s"], end_s) - np.maximum(steps["start_s"], begin_s)
        shared_s = shared_s.clip(min=0)
        for field in FIELDS:
            amounts = np.bincount(steps["rank"], shared_s * steps[field], records.ranks)
            expected = amounts / (end_s - begin_s)
            assert getattr(found, field)[window] == pytest.approx(expected, abs=1e-6)
        rows = records.requests
        present_s = np.minimum(rows["finish_s"], end_s) - np.maximum(rows["dispatch_s"], begin_s)
        expected = present_s.clip(min=0).sum() / (end_s - begin_s)
        assert found.outstanding[window] == pytest.approx(expected, abs=1e-6)


def test_columns_name_every_rank_and_the_whole_group(records: Records) -> None:
    found: Series = series(records, 20)
    columns = found.columns()
    assert list(columns)[:4] == [
        "time_s",
        "straggler_share",
        "queue_requests",
        "in_flight_requests",
    ]
    assert columns["queue_requests"] == pytest.approx(found.waiting.sum(axis=1))
    requests = found.running + found.waiting
    for rank in range(3):
        assert columns[f"load/rank_{rank}/requests"] == pytest.approx(requests[:, rank])
        kv = columns[f"load/rank_{rank}/kv_used_tokens"]
        assert kv == pytest.approx(found.kv_used_tokens[:, rank])
    assert len(columns) == 4 + 2 * 3
