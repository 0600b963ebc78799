"""What dispatchers see of the ranks, and when, is what the transport's timing says."""

from __future__ import annotations

from itertools import count, takewhile

import numpy as np
import pytest
from scipy import stats

from dpbal.backends.simulator.simulator import Simulator
from dpbal.modes import GroupKind, LedgerMode
from dpbal.step_time import StepTime
from dpbal.transports import Delayed, Local, Transport
from tests.simulator.runs import Probe, Run, simulate, workload

STEP_S = 0.010103
"""Every step takes as long, whatever is in it; and no multiple of it is a round number soon."""


def watch(
    transport: Transport,
    at_s: list[float],
    steps: int = 1000,
    kind: GroupKind = GroupKind.independent,
    seed: int = 0,
) -> Probe:
    """A rank that is kept busy from 0 s on, and a decision at each of ``at_s``."""
    probe = Probe()
    rows = [(0.0, 1, steps), *((now_s, 1, 1) for now_s in at_s)]
    simulate(
        workload(rows),
        StepTime(fixed_s=STEP_S),
        kind=kind,
        transport=transport,
        balancer=lambda: probe,
        seed=seed,
    )
    for seen in (probe.now_s, probe.reports, probe.in_flight):
        del seen[0]  # of the request that keeps it busy
    return probe


def last_step_end_s(until_s: float, every: int = 1) -> float:
    """End of the last step by then, or of every so manieth; 0 for none."""
    ends = takewhile(lambda end_s: end_s <= until_s, (k * every * STEP_S for k in count(1)))
    return max(ends, default=0.0)


DENSE = np.arange(0.0033137, 6.0, 0.0077).tolist()
SPARSE = [0.0561, 0.1652, 0.1711, 0.5533, 2.5015, 2.5017, 4.4444]


@pytest.mark.parametrize("kind", GroupKind)
@pytest.mark.parametrize("at_s", [DENSE, SPARSE])
@pytest.mark.parametrize("delay_s", [0.0, 0.0033, 0.05, 2.0])
def test_a_report_is_seen_after_the_delay(
    delay_s: float, at_s: list[float], kind: GroupKind
) -> None:
    transport = Delayed(delay_s=delay_s) if delay_s else Local()
    probe = watch(transport, at_s, kind=kind)  # 2 s hold 198 reports under way
    expected = [last_step_end_s(now_s - delay_s) for now_s in at_s]
    np.testing.assert_allclose(probe.seen("time_s"), expected, rtol=1e-9)
    np.testing.assert_allclose(probe.seen("version"), 1 + np.array(expected) / STEP_S, rtol=1e-9)


@pytest.mark.parametrize("at_s", [DENSE, SPARSE])
@pytest.mark.parametrize("delay_s", [0.0, 0.0330007, 0.7000007])
@pytest.mark.parametrize("interval_s", [0.02, 0.1])
def test_dispatchers_see_what_had_arrived_at_the_last_refresh(
    interval_s: float, delay_s: float, at_s: list[float]
) -> None:
    probe = watch(Delayed(interval_s=interval_s, delay_s=delay_s), at_s)
    refreshes = [now_s // interval_s * interval_s for now_s in at_s]
    expected = [last_step_end_s(refresh_s - delay_s) for refresh_s in refreshes]
    np.testing.assert_allclose(probe.seen("time_s"), expected, rtol=1e-9)


@pytest.mark.parametrize("steps", [2, 40])
def test_a_rank_reports_every_so_many_steps(steps: int) -> None:
    probe = watch(Delayed(interval_steps=steps), DENSE)
    expected = [last_step_end_s(now_s, every=steps) for now_s in DENSE]
    np.testing.assert_allclose(probe.seen("time_s"), expected, rtol=1e-9)


def test_steps_with_prefill_are_reported_at_once() -> None:
    probe = watch(Delayed(interval_steps=1000, publish_on_prefill=True), SPARSE)
    # a request that arrives during a step is prefilled in the next
    ends = [last_step_end_s(now_s) + 2 * STEP_S for now_s in [-1.0 * STEP_S, *SPARSE]]
    expected = [max(e for e in [STEP_S, *ends[1:]] if e <= now_s) for now_s in SPARSE]
    np.testing.assert_allclose(probe.seen("time_s"), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", GroupKind)
@pytest.mark.parametrize(("tells", "running"), [(True, 0), (False, 1)])
def test_f10_an_idle_ranks_last_word_is_that_it_is_idle(
    tells: bool, running: int, kind: GroupKind
) -> None:
    probe = Probe()
    # reported at its 4th step while busy, idle after the 6th, asked long after
    simulate(
        workload([(0.0, 1, 6), (5.0, 1, 1)]),
        StepTime(fixed_s=STEP_S),
        kind=kind,
        transport=Delayed(interval_steps=4, publish_on_idle=tells),
        balancer=lambda: probe,
    )
    assert probe.seen("running")[-1] == running


def test_jitter_keeps_the_order_and_its_bounds() -> None:
    probe = watch(Delayed(delay_s=0.05, jitter_s=0.04), DENSE)
    times_s = probe.seen("time_s")
    assert (np.diff(times_s) >= 0).all()
    ages_s = np.array(DENSE) - times_s
    settled = np.array(DENSE) > 0.2
    assert (ages_s[settled] >= 0.05).all()
    assert (ages_s[settled] <= 0.05 + 0.04 + STEP_S).all()
    assert np.ptp(ages_s[settled]) > 0.02  # more than the step's own phase


def test_jitter_is_uniform_where_reports_do_not_meet() -> None:
    at_s = [(k + 0.9) * STEP_S for k in range(500)]
    draws = [watch(Delayed(delay_s=0.0, jitter_s=STEP_S), at_s, seed=seed) for seed in range(3)]
    # a decision 0.9 of a step after a report sees it with probability 0.9
    fresh = sum(int((np.array(at_s) - p.seen("time_s") < STEP_S)[1:].sum()) for p in draws)
    low, high = stats.binom.interval(0.999, 3 * 499, 0.9)
    assert low <= fresh <= high


@pytest.mark.parametrize("loss", [0.1, 0.5])
def test_a_share_of_the_reports_is_lost(loss: float) -> None:
    at_s = [(k + 0.5) * STEP_S for k in range(1, 900)]
    probe = watch(Delayed(loss=loss), at_s)
    ages = (np.array(at_s) - probe.seen("time_s")) / STEP_S
    fresh = int((ages < 1).sum())
    low, high = stats.binom.interval(0.999, len(at_s), 1 - loss)
    assert low <= fresh <= high
    assert np.allclose(ages % 1, 0.5)  # what is seen instead is an older report, whole


def test_the_seed_decides_what_is_lost_and_ranks_draw_apart() -> None:
    at_s = [(k + 0.5) * STEP_S for k in range(1, 300)]
    first, same, other = (watch(Delayed(loss=0.5), at_s, seed=seed) for seed in (1, 1, 2))
    assert first.seen("time_s").tolist() == same.seen("time_s").tolist()
    assert first.seen("time_s").tolist() != other.seen("time_s").tolist()

    probe = Probe()
    rows = [(0.0, 1, 400), *((now_s, 1, 1) for now_s in at_s)]
    simulate(
        workload(rows),
        StepTime(fixed_s=STEP_S),
        kind=GroupKind.lockstep,
        ranks=2,
        transport=Delayed(loss=0.5),
        balancer=lambda: probe,
    )
    assert probe.seen("time_s", 0).tolist() != probe.seen("time_s", 1).tolist()


ARRIVALS = [0.0, 0.0011, 0.0022, 0.0033, 0.0155, 0.0255, 0.0555]
"""The first is in step 1; the next three are received when it ends, and reported after step 2."""


def in_flight(mode: LedgerMode, transport: Transport) -> list[int]:
    probe = Probe()
    simulate(
        workload([(now_s, 1, 1000) for now_s in ARRIVALS]),
        StepTime(fixed_s=STEP_S),
        transport=transport,
        balancer=lambda: probe,
        mode=mode,
        engine=Simulator(max_time_s=0.2),
    )
    return [int(seen[0]) for seen in probe.in_flight]


def test_a_dispatch_is_in_flight_until_its_rank_reports_having_received_it() -> None:
    assert in_flight(LedgerMode.acknowledge, Local()) == [0, 1, 2, 3, 3, 1, 0]


def test_an_overwriting_ledger_forgets_at_any_newer_report() -> None:
    # the very first report, of a rank that starts idle, is newer than none
    assert in_flight(LedgerMode.overwrite, Local()) == [0, 1, 2, 3, 0, 0, 0]


def test_acknowledgements_travel_with_the_reports() -> None:
    delayed = Delayed(delay_s=0.02)
    # step 1 acknowledges the first at 0.0101 and is seen at 0.0301, step 2 at 0.0402 and so on
    assert in_flight(LedgerMode.acknowledge, delayed) == [0, 1, 2, 3, 4, 5, 1]


def test_a_rank_that_is_idle_says_so() -> None:
    probe = Probe()
    run: Run = simulate(
        workload([(0.0, 8, 3), (1.0, 8, 1)]), StepTime(fixed_s=STEP_S), balancer=lambda: probe
    )
    seen = probe.reports[1][0]
    assert seen["time_s"] == pytest.approx(3 * STEP_S)
    assert seen["kv_capacity_tokens"] == run.parts.step_time.kv_capacity_tokens
    for field in ("running", "waiting", "holding_tokens", "kv_used_tokens", "prefill_tokens"):
        assert seen[field] == 0
