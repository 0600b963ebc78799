"""Requests that are held until the group's step ends, and placed together then."""

from __future__ import annotations

import numpy as np
import pytest

from dpbal.backends.simulator.simulator import Simulator
from dpbal.balancers import DecodeMargin
from dpbal.errors import ConfigError
from dpbal.signals import DecodeLoad
from dpbal.step_time import StepTime
from tests.simulator.runs import INDEPENDENT, LOCKSTEP, Probe, Run, simulate, workload

STEP_TIME = StepTime(fixed_s=1.0, kv_s_per_token=1e-4)
HELD = Simulator(hold=True)


def run(rows: list[tuple[float, int, int]], engine: Simulator, dispatchers: int = 1) -> Run:
    return simulate(
        workload(rows),
        STEP_TIME,
        kind=LOCKSTEP,
        ranks=2,
        dispatchers=dispatchers,
        engine=engine,
        balancer=DecodeMargin,
        signal=DecodeLoad,
    )


ROWS = [(0.0, 10, 50), *((0.3 + 0.9 * k, 10 + 17 * k % 40, 20) for k in range(40))]


@pytest.mark.parametrize("dispatchers", [1, 3])
def test_each_is_placed_when_a_step_ends_and_waits_since_it_arrived(dispatchers: int) -> None:
    done = run(ROWS, HELD, dispatchers)
    ends_s = np.unique(done.steps["end_s"])
    placed_s = done.requests["dispatch_s"]
    assert placed_s[0] == 0.0  # the group was at rest
    for arrival_s, at_s in zip(done.requests["arrival_s"][1:], placed_s[1:], strict=True):
        assert at_s == ends_s[ends_s >= arrival_s].min()
    assert done.requests["arrival_s"].tolist() == pytest.approx([row[0] for row in ROWS])
    assert (done.ttft_s > 0).all()
    assert done.requests["output_tokens"].tolist() == [row[2] for row in ROWS]


def test_the_largest_of_a_step_is_placed_first() -> None:
    rows = [(0.0, 1, 9), (0.1, 1, 9), (0.2, 100, 5), (0.3, 100, 5), (0.4, 100, 5), (0.5, 300, 5)]

    def tokens(engine: Simulator) -> list[int]:
        done = run(rows, engine)
        held = done.requests[2:]
        return sorted(int(held["prompt_tokens"][held["rank"] == r].sum()) for r in range(2))

    assert tokens(HELD) == [300, 300]
    assert tokens(Simulator()) == [200, 400]


def test_decisions_see_the_reports_of_the_step_that_has_just_ended() -> None:
    probe = Probe()
    simulate(
        workload([(0.0, 10, 9), (2.5, 10, 1)]),
        StepTime(fixed_s=1.0),
        kind=LOCKSTEP,
        engine=HELD,
        balancer=lambda: probe,
    )
    assert probe.now_s == [0.0, 3.0]
    assert probe.seen("version").tolist() == [1, 4]  # the first is there from the start


def test_a_group_at_rest_places_at_once() -> None:
    rows = [(10.0 * k, 10, 3) for k in range(5)]
    held, immediate = run(rows, HELD), run(rows, Simulator())
    assert (held.requests == immediate.requests).all()


def test_ranks_that_step_alone_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"type backend.hold=false, or group.kind=lockstep"):
        simulate(workload(ROWS), STEP_TIME, kind=INDEPENDENT, engine=HELD)
