"""Ranks whose process starts anew, and prefix caches that an operator clears."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from dpbal.backends import BACKENDS
from dpbal.backends.base import Outcome
from dpbal.backends.simulator.simulator import Simulator
from dpbal.composition import compose
from dpbal.errors import ConfigError
from dpbal.modes import GroupKind
from dpbal.parts import build
from dpbal.step_time import StepTime
from dpbal.transports import Delayed
from tests.simulator.runs import INDEPENDENT, LOCKSTEP, Probe, simulate, workload
from tests.simulator.test_conservation import CASES, Case, check_cache

SECOND = StepTime(common_fixed_s=1.0)
"""Every step takes one second."""

KEYS = [1, 2, 3]


def outcomes(rows: np.ndarray) -> list[str]:
    return [Outcome(value).name for value in rows["outcome"]]


@pytest.mark.parametrize("kind", GroupKind)
def test_all_that_a_rank_was_sent_is_aborted_when_its_step_ends(kind: GroupKind) -> None:
    # one runs, one waits, one has come during the last step; the last comes after
    rows = [(0.0, 10, 50), (0.5, 10, 50), (3.2, 10, 50), (4.5, 10, 2)]
    engine = Simulator(max_num_seqs=1, restarts={0: 3.5})
    run = simulate(workload(rows), SECOND, kind=kind, engine=engine)
    assert outcomes(run.requests) == ["aborted", "aborted", "aborted", "finished"]
    assert run.requests["finish_s"].tolist() == [4, 4, 4, 6.5]
    assert run.requests["output_tokens"].tolist() == [4, 0, 0, 2]
    assert run.requests["first_token_s"][3] == 5.5
    (dispatcher,) = run.parts.dispatchers
    assert not dispatcher.ledger.outstanding.any()
    assert dispatcher.ledger.unknown_releases == 0


@pytest.mark.parametrize("kind", GroupKind)
@pytest.mark.parametrize(("restart_s", "cached"), [(None, 48), (5.0, 0), (9.0, 0), (9.5, 48)])
def test_a_rank_at_rest_starts_anew_at_once(
    restart_s: float | None, cached: int, kind: GroupKind
) -> None:
    probe = Probe()
    rows = [(0.0, 50, 2), (9.0, 50, 2), (20.0, 50, 2)]
    restarts = None if restart_s is None else {0: restart_s}
    run = simulate(
        workload(rows, hashes=[KEYS] * 3),
        SECOND,
        kind=kind,
        engine=Simulator(restarts=restarts),
        balancer=lambda: probe,
    )
    assert run.requests["cached_tokens"][:2].tolist() == [0, cached]
    is_seen = restart_s is not None and restart_s <= 9.0
    assert probe.seen("epoch").tolist() == [1, 1 + is_seen, 1 + (restart_s is not None)]
    if is_seen:
        assert probe.seen("version")[1] == 1
        assert probe.seen("time_s")[1] == restart_s
    if restart_s == 9.5:  # while its step ran
        assert outcomes(run.requests) == ["finished", "aborted", "finished"]
        assert run.requests["cached_tokens"][2] == 0


def test_the_group_goes_on_with_the_rank_in_the_next_step() -> None:
    rows = [(0.0, 10, 9), (0.0, 10, 9), (4.5, 10, 2)]
    engine = Simulator(restarts={1: 3.5})
    run = simulate(workload(rows, pinned=[0, 1, 1]), SECOND, kind=LOCKSTEP, ranks=2, engine=engine)
    calm = simulate(workload(rows, pinned=[0, 1, 1]), SECOND, kind=LOCKSTEP, ranks=2)
    assert outcomes(run.requests) == ["finished", "aborted", "finished"]
    for name in ("first_token_s", "finish_s"):
        assert run.requests[name][[0, 2]].tolist() == calm.requests[name][[0, 2]].tolist()
    own = run.steps[run.steps["rank"] == 1]
    assert own["running"].tolist()[:7] == [0, 1, 1, 1, 0, 1, 0]


def test_reports_of_the_old_process_that_are_under_way_are_lost() -> None:
    probe = Probe()
    rows = [(0.0, 10, 50), *((2.95 + 0.1 * k, 10, 1) for k in range(30))]
    simulate(
        workload(rows),
        SECOND,
        engine=Simulator(restarts={0: 3.5}),
        transport=Delayed(delay_s=0.5),
        balancer=lambda: probe,
    )
    # the restart is at 4 s and seen at 4.5 s; the old process' report of 4 s never is
    assert sorted(set(probe.seen("time_s").tolist())) == pytest.approx([0, 2, 3, 4, 5.05])
    at_4 = probe.seen("time_s") == 4
    assert set(probe.seen("epoch")[at_4].tolist()) == {2}
    assert set(probe.seen("running")[at_4].tolist()) == {0}


@pytest.mark.parametrize("kind", GroupKind)
def test_a_reset_clears_what_nobody_holds(kind: GroupKind) -> None:
    rows = [(0.0, 50, 2), (5.0, 50, 2), (10.0, 50, 50), (20.5, 50, 2)]
    hashes = [KEYS, KEYS, [7, 8, 9], [7, 8, 9]]
    engine = Simulator(cache_resets=[20.2, 4.0])
    run = simulate(workload(rows, hashes=hashes), SECOND, kind=kind, engine=engine)
    # at 20.2 s the third still holds what the fourth asks for
    assert run.requests["cached_tokens"].tolist() == [0, 0, 0, 48]
    assert run.state.prefixes.tolist() == [3]
    calm = simulate(workload(rows, hashes=hashes), SECOND, kind=kind)
    assert calm.requests["cached_tokens"].tolist() == [0, 48, 0, 48]
    assert run.requests["finish_s"].tolist() == calm.requests["finish_s"].tolist()


@st.composite
def disturbed(draw: st.DrawFn) -> Case:
    """Restarts and resets at any time of a run."""
    case = draw(CASES)
    times = st.floats(0.0, 0.5)
    engine = replace(
        case.engine,
        restarts=draw(st.dictionaries(st.integers(0, case.ranks - 1), times, max_size=3)),
        cache_resets=draw(st.lists(times, max_size=2)),
    )
    return case._replace(engine=engine)


@settings(max_examples=200, derandomize=True)
@given(disturbed())
def test_every_request_ends_once_and_nothing_is_left(case: Case) -> None:
    run = case.run()
    rows = run.requests
    event(f"aborted: {bool((rows['outcome'] == Outcome.aborted).any())}")
    ended = [Outcome.finished, Outcome.failed, Outcome.aborted]
    assert np.isin(rows["outcome"], ended).all()
    assert np.isfinite(rows["finish_s"]).all()
    finished = rows["outcome"] == Outcome.finished
    wanted = case.requests.output_tokens
    assert (rows["output_tokens"][finished] == wanted[finished]).all()
    restarted = list(case.engine.restarts or {})
    aborted = rows[rows["outcome"] == Outcome.aborted]
    assert np.isin(aborted["rank"], restarted).all()
    for rank in restarted:  # all at one time
        assert len(np.unique(aborted["finish_s"][aborted["rank"] == rank])) <= 1

    for dispatcher in run.parts.dispatchers:
        assert not dispatcher.ledger.outstanding.any()
        assert not any(totals.any() for totals in dispatcher.ledger.in_flight)
    for name in ("running", "waiting", "holding_tokens", "prefill_tokens", "prefill_squares"):
        assert not run.state.ranks[name].any(), name
    assert not run.state.ranks["decode_kv_tokens"].any()
    blocks = int(run.state.spec["blocks"][0])
    assert (run.state.ranks["free_blocks"] == blocks).all()
    for r in range(case.ranks) if run.state.spec["caching"][0] else ():
        check_cache(run.state, r, blocks)
        assert run.state.prefixes[r] == (run.state.blocks[r]["key"][:blocks] >= 0).sum()


@settings(max_examples=30, derandomize=True)
@given(disturbed())
def test_the_same_seed_gives_the_same_records(case: Case) -> None:
    first, second = case.run().records, case.run().records
    assert first.requests.tobytes() == second.requests.tobytes()
    assert first.steps.tobytes() == second.steps.tobytes()


def test_a_rank_that_does_not_exist_is_refused() -> None:
    engine = Simulator(restarts={2: 1.0})
    with pytest.raises(ConfigError, match=r"restarts names rank 2; ranks are 0 to 1"):
        simulate(workload([(0.0, 1, 1)]), SECOND, kind=INDEPENDENT, ranks=2, engine=engine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restarts": {3: -1.0}}, "rank 3 must restart at 0 s or later, got -1.0"),
        ({"cache_resets": [5.0, -2.0]}, "cache_resets must be at 0 s or later, got -2.0"),
    ],
)
def test_times_before_the_start_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        BACKENDS.build("simulator", options)
    assert len(str(error.value).splitlines()) == 1


def test_they_can_be_typed() -> None:

    config = compose("backend.restarts={3: 60}", "backend.cache_resets=[30, 90]")
    engine = build("backend", config.backend)
    assert (engine.restarts, engine.cache_resets) == ({3: 60.0}, [30.0, 90.0])
