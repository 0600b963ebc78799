"""Prefill happens in the steps that a budget says, in schedules that are worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from dpbal.backends.simulator.run import SimulationError
from dpbal.backends.simulator.simulator import Simulator
from dpbal.budgets import UNLIMITED, Aligned, Budget, Fixed, Interval, Limits
from dpbal.modes import GroupKind
from dpbal.step_time import StepTime
from tests.simulator.runs import INDEPENDENT, LOCKSTEP, Probe, simulate, workload

SECOND = StepTime(common_fixed_s=1.0)
"""Every step takes one second, with or without work."""


def first_tokens_s(
    budget: Budget,
    rows: Sequence[tuple[float, int, int]],
    pinned: Sequence[int],
    engine: Simulator | None = None,
) -> list[float]:
    requests = workload(rows, pinned=pinned)
    engine = engine or Simulator(vector_lag=0)
    run = simulate(requests, SECOND, kind=LOCKSTEP, ranks=2, budget=budget, engine=engine)
    return [float(now_s) for now_s in run.requests["first_token_s"]]


def test_fixed_prefills_in_the_next_step() -> None:
    rows = [(0.0, 10, 9), (0.5, 10, 1), (3.5, 10, 1)]
    assert first_tokens_s(Fixed(), rows, [0, 0, 0]) == [1, 2, 5]


def test_interval_prefills_in_every_third_step() -> None:
    rows = [(0.0, 10, 20), (0.5, 10, 1), (4.5, 10, 1), (4.7, 10, 1)]
    # steps 0, 3 and 6, which end at 1, 4 and 7 s
    assert first_tokens_s(Interval(3), rows, [0, 0, 0, 0]) == [1, 4, 7, 7]


def test_interval_holds_no_rank_that_has_nothing_to_decode() -> None:
    rows = [(0.0, 10, 20), (0.5, 10, 1), (0.6, 10, 1)]
    assert first_tokens_s(Interval(3), rows, [0, 1, 0]) == [1, 2, 4]


def test_interval_counts_from_when_the_group_was_idle() -> None:
    rows = [(0.0, 10, 2), (7.0, 10, 20), (7.5, 10, 1)]
    assert first_tokens_s(Interval(3), rows, [0, 0, 0]) == [1, 8, 11]


def test_interval_lets_a_rank_go_on_that_cannot_keep_up() -> None:
    rows = [(0.0, 10, 20), (0.5, 10, 1), (0.6, 10, 1), (0.7, 10, 1), (5.5, 10, 1)]
    engine = Simulator(max_num_batched_tokens=11)  # one decode and one prompt
    # at 4 s two are left waiting, so they go on at once; from 6 s on nobody is
    assert first_tokens_s(Interval(3), rows, [0] * 5, engine) == [1, 4, 5, 6, 7]
    late = [*rows[:4], (7.5, 10, 1)]
    assert first_tokens_s(Interval(3), late, [0] * 5, engine) == [1, 4, 5, 6, 10]


def test_aligned_waits_for_every_rank() -> None:
    budget = Aligned(timeout_iters=50, batching_wait_iters=1)
    rows = [(0.0, 10, 30), (0.5, 10, 30), (2.5, 10, 1), (3.5, 10, 1)]
    # ranks 0 and 1 start without waiting, as there is nothing to decode there; then rank 0 has
    # prefill from 3 s on and rank 1 from 4 s on, one more step is waited for more, and from 5 s
    # to 6 s both prefill
    assert first_tokens_s(budget, rows, [0, 1, 0, 1]) == [1, 2, 6, 6]


def test_aligned_prefills_alone_after_the_time_out() -> None:
    rows = [(0.0, 10, 30), (0.5, 10, 1)]
    # steps 1, 2 and 3 are held and the fourth, which ends at 5 s, is not
    assert first_tokens_s(Aligned(timeout_iters=4), rows, [0, 0]) == [1, 5]


def test_aligned_with_one_rank_asked_for_does_not_wait_for_the_other() -> None:
    budget = Aligned(ranks=1, timeout_iters=50, batching_wait_iters=0)
    rows = [(0.0, 10, 30), (0.5, 10, 30), (2.5, 10, 1)]
    assert first_tokens_s(budget, rows, [0, 1, 0]) == [1, 2, 4]


@dataclass
class Constant(Budget):
    """The same limits for every rank and step; keeps the vectors it was shown."""

    tokens: int = UNLIMITED
    seconds: float = float("inf")
    vectors: list[np.ndarray] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def limits(self, step: int, vectors: np.ndarray) -> Limits:
        """The constants."""
        self.vectors.append(vectors.copy())
        self.steps.append(step)
        n = len(vectors)
        return Limits(np.full(n, self.tokens), np.full(n, self.seconds))


class Static(Constant):
    """The same, asked for only once."""

    is_static = True


def test_a_limit_in_tokens_is_shared_by_the_requests_of_a_rank() -> None:
    rows = [(0.0, 10, 9), (0.1, 5, 1), (0.2, 5, 1)]
    requests = workload(rows)
    run = simulate(requests, SECOND, kind=LOCKSTEP, budget=Constant(tokens=7))
    assert run.steps["prefill_tokens"].tolist()[:4] == [7, 7, 6, 0]
    assert run.requests["first_token_s"].tolist() == [2, 3, 3]
    assert run.steps["decode_seqs"].tolist()[:4] == [0, 0, 1, 1]


@pytest.mark.parametrize("kind", GroupKind)
@pytest.mark.parametrize("per_pair_s", [0.0, 2e-6])
def test_a_limit_in_seconds_takes_as_many_tokens_as_fit(kind: GroupKind, per_pair_s: float) -> None:
    step_time = StepTime(
        prefill_s_per_token=1e-3, attention_s_per_pair=per_pair_s, common_fixed_s=0.1
    )
    budget = Static(seconds=0.05)
    run = simulate(workload([(0.0, 300, 1)]), step_time, kind=kind, budget=budget)
    context = 0
    for tokens in run.steps["prefill_tokens"].tolist():
        most = [n for n in range(301) if step_time.prefill_s(n, context) <= 0.05 * (1 + 1e-9)]
        assert tokens == min(max(most), 300 - context)
        context += tokens
    assert context == 300
    assert len(run.steps) > 6 or per_pair_s == 0


def test_a_budget_is_told_what_every_rank_has() -> None:
    step_time = StepTime(
        prefill_s_per_token=1e-3,
        decode_s_per_seq=2e-3,
        kv_s_per_token=3e-6,
        attention_s_per_pair=4e-6,
        common_fixed_s=1.0,
    )
    budget = Constant()
    rows = [(0.0, 10, 9), (0.5, 30, 1), (0.6, 20, 1), (0.7, 15, 1)]
    simulate(
        workload(rows),
        step_time,
        kind=LOCKSTEP,
        ranks=2,
        budget=budget,
        engine=Simulator(max_num_seqs=3),
        balancer=Probe,
    )
    assert budget.steps[:3] == [0, 1, 2]
    start, second = budget.vectors[0][0], budget.vectors[1][0]
    assert start["prefill_requests"] == 1
    assert start["prefill_s"] == pytest.approx(10 * 1e-3 + 4e-6 * 50)
    assert start["decode_seqs"] == 0
    assert start["decode_s"] == 0

    # one decodes and two have a free slot; the fourth cannot be admitted and does not count
    first_step_s = 1.0 + 10 * 1e-3 + 4e-6 * 50
    assert second["decode_seqs"] == 1
    assert second["decode_s"] == pytest.approx(2e-3 + 3e-6 * 11)
    assert second["prefill_requests"] == 2
    assert second["prefill_s"] == pytest.approx(50 * 1e-3 + 4e-6 * (450 + 200))
    assert second["oldest_wait_s"] == pytest.approx(first_step_s - 0.5)
    assert not second["capacity_bound"]
    assert budget.vectors[2][0]["capacity_bound"]  # the fourth was left waiting
    assert start["step_s"] == start["done_prefill_s"] == start["done_tokens"] == 0
    assert second["step_s"] == pytest.approx(first_step_s)
    assert second["done_prefill_s"] == pytest.approx(first_step_s - 1.0)
    assert second["done_decode_s"] == 0
    assert second["done_tokens"] == 10
    idle = budget.vectors[1][1]
    assert idle["step_s"] == second["step_s"]  # it waited for the other
    for name in idle.dtype.names or ():
        assert name == "step_s" or idle[name] == 0


@pytest.mark.parametrize(
    ("budget", "kind"),
    [
        (Constant(tokens=0), LOCKSTEP),
        (Static(tokens=0), LOCKSTEP),
        (Static(tokens=0), INDEPENDENT),  # which ask only once
        (Static(seconds=1e-9), INDEPENDENT),
    ],
)
def test_a_budget_that_lets_nobody_work_is_named(budget: Budget, kind: GroupKind) -> None:
    step_time = StepTime(prefill_s_per_token=1e-3, common_fixed_s=0.01)
    requests = workload([(0.0, 10, 9), (0.5, 10, 1)])
    name = type(budget).__name__
    with pytest.raises(SimulationError, match=rf"{name} has let no rank work .* 2 requests wait"):
        simulate(requests, step_time, kind=kind, ranks=2, budget=budget)


def test_a_budget_that_stops_in_the_middle_of_a_prompt_is_named() -> None:
    step_time = StepTime(prefill_s_per_token=1e-3, attention_s_per_pair=1e-4)
    budget = Static(seconds=1.2e-3)  # enough for the first token and not for the fourth
    with pytest.raises(SimulationError, match=r"Static has let no rank work .* 1 requests wait"):
        simulate(workload([(0.0, 10, 9)]), step_time, budget=budget)
