"""The level budget: its rule against a search, and what its parameters promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpbal.budgets import Level
from dpbal.budgets.level_rule import highest
from dpbal.core import VECTOR
from dpbal.errors import ConfigError
from dpbal.parts import build
from dpbal.step_time import StepTime

CHUNK_TOKENS = 1000
STEP_TIME = StepTime(fixed_s=0.01, prefill_s_per_token=1e-4, decode_s_per_seq=1e-3)
CHUNK_S = 0.1
SECONDS = st.floats(0, 0.3)
RANK = st.tuples(SECONDS, SECONDS)


def waste_s(
    at_s: np.ndarray, decode_s: np.ndarray, prefill_s: np.ndarray, penalty_s: float
) -> np.ndarray:
    """Waste of each level in ``at_s``, from its definition."""
    able_s = np.minimum(prefill_s, CHUNK_S)
    done_s = np.clip(at_s[:, None] - decode_s, 0, able_s).sum(axis=1)
    ranks = len(decode_s)
    worth = 1 / ranks + penalty_s / (ranks * CHUNK_S)
    spent: np.ndarray = at_s - decode_s.max() + penalty_s - done_s * worth
    return spent


@settings(max_examples=300, deadline=None)
@given(
    st.lists(RANK, min_size=1, max_size=6),
    st.sampled_from([0.0, 0.008, 0.25]),
    st.one_of(st.floats(0, 0.2), st.just(np.inf)),
    st.floats(0, 0.2),
    st.one_of(st.floats(0, 0.2), st.just(np.inf)),
)
def test_level_is_the_highest_that_can_be_afforded(
    ranks: list[tuple[float, float]],
    penalty_s: float,
    affordable_s: float,
    longest_raise_s: float,
    room_s: float,
) -> None:
    decode_s, prefill_s = np.array(ranks).T.copy()
    able_s = np.minimum(prefill_s, CHUNK_S)
    slower = np.zeros(len(ranks))
    found_s, spent_s = highest(
        decode_s, able_s, slower, penalty_s, CHUNK_S, affordable_s, longest_raise_s, room_s
    )
    lowest_s = decode_s.max()
    tops_s = decode_s + np.minimum(prefill_s, CHUNK_S)
    shared_s = tops_s.min() if (tops_s > lowest_s).all() else lowest_s
    highest_s = min(max(shared_s, lowest_s + longest_raise_s), lowest_s + room_s)
    grid_s = np.linspace(lowest_s, max(lowest_s, min(highest_s, tops_s.max())), 4001)
    affordable = waste_s(grid_s, decode_s, prefill_s, penalty_s) <= affordable_s + 1e-12
    if found_s < 0:
        assert not affordable.any()
        return
    assert found_s <= max(highest_s, lowest_s) + 1e-12
    own_s = waste_s(np.array([found_s]), decode_s, prefill_s, penalty_s)[0]
    assert own_s <= affordable_s + 1e-9
    assert spent_s == pytest.approx(own_s, abs=1e-9)
    if affordable.any():
        assert found_s >= grid_s[affordable][-1] - 1e-9


def vectors_of(*ranks: tuple[int, float, float]) -> np.ndarray:
    """Vectors of ranks with (decodes, prefill seconds, age of their only prompt)."""
    vectors = np.zeros(len(ranks), VECTOR)
    decodes, prefill_s, ages_s = np.array(ranks).T
    vectors["decode_seqs"] = decodes
    vectors["decode_s"] = 1e-3 * decodes
    vectors["prefill_s"] = prefill_s
    vectors["prefill_requests"] = prefill_s > 0
    # a prompt without a token has waited, if only for a moment
    ages_s = np.where(prefill_s > 0, np.maximum(ages_s, 1e-9), ages_s)
    vectors["wait_s"] = vectors["oldest_wait_s"] = ages_s
    return vectors


def started(budget: Level, ranks: int) -> Level:
    budget.start(ranks, STEP_TIME, CHUNK_TOKENS)
    return budget


def test_ranks_below_the_slowest_prefill_for_free() -> None:
    vectors = vectors_of((50, 0, 0), (20, 1.0, 0), (0, 1.0, 0))
    limits = started(Level(growth=1e-9), 3).limits(0, vectors)
    assert limits.seconds.tolist() == pytest.approx([0.0, 0.03, 0.05], abs=1e-8)


def test_free_prefill_pays_for_a_raise() -> None:
    vectors = vectors_of((50, 0, 0), (20, 1.0, 0), (0, 0.06, 0))
    seconds = started(Level(growth=10.0), 3).limits(0, vectors).seconds
    level_s = float(seconds[1]) + 0.02
    done_s = seconds[1] + min(0.06, level_s)
    assert level_s - 0.05 == pytest.approx(done_s / 3)  # what it takes spread over all ranks


def test_prefill_of_all_ranks_is_not_held_back() -> None:
    vectors = vectors_of((50, 0.04, 0), (50, 0.07, 0))
    limits = started(Level(), 2).limits(0, vectors)
    assert (limits.seconds >= 0.04 - 1e-12).all()


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_what_a_lone_prompt_wastes_is_worth_its_waiting(weight: float) -> None:
    budget = started(Level(growth=10.0, ttft_weight=weight, ttft_deadline_s=None), 2)
    decodes, age_s, wasted_s, raise_s = 50, 0.0, 0.0, 0.0
    for step in range(400):
        vectors = vectors_of((decodes, 0, 0), (decodes, 0.1, age_s))
        vectors["step_s"] = STEP_TIME.fixed_s + 1e-3 * decodes + raise_s if step else 0.0
        raise_s = float(budget.limits(step, vectors).seconds[1])
        assert raise_s > 0 or step == 0
        wasted_s += 2 * decodes * raise_s / 2  # half of a raise that one rank of two uses
        age_s += STEP_TIME.fixed_s + 1e-3 * decodes + raise_s
    assert wasted_s <= weight * age_s
    assert wasted_s >= 0.9 * weight * age_s


def test_growth_limits_what_one_rank_may_do_to_all() -> None:
    budget = started(Level(growth=0.5, ttft_weight=None), 2)
    seconds = budget.limits(0, vectors_of((50, 0, 0), (50, 5.0, 9.0))).seconds
    bare_s = STEP_TIME.fixed_s + 0.05
    assert seconds[1] == pytest.approx(0.5 * bare_s)


def test_nothing_is_limited_where_nobody_decodes() -> None:
    limits = started(Level(), 2).limits(0, vectors_of((0, 3.0, 0), (0, 0, 0)))
    assert np.isinf(limits.seconds).all()


def test_a_prompt_that_nobody_knows_of_yet_prefills_beside_the_longest_decodes() -> None:
    vectors = vectors_of((50, 0, 0), (20, 0, 0))  # it came after these were told
    limits = started(Level(), 2).limits(0, vectors)
    assert limits.seconds.tolist() == pytest.approx([0.0, 0.03])


def test_a_preempted_request_does_not_wait_for_ever() -> None:
    vectors = vectors_of((50, 0.1, 0), (20, 0, 0))
    vectors["wait_s"] = vectors["oldest_wait_s"] = 0  # it has its first token, and earns nothing
    limits = started(Level(growth=0.5), 2).limits(0, vectors)
    assert limits.seconds[0] == pytest.approx(0.5 * (STEP_TIME.fixed_s + 0.05))


def test_a_target_for_a_token_counts_the_penalty() -> None:
    costly = StepTime(
        fixed_s=0.01, prefill_s_per_token=1e-4, decode_s_per_seq=1e-3, mixed_penalty_s=0.05
    )
    vectors = vectors_of((50, 1.0, 9.0), (50, 1.0, 9.0))
    for target_s, room_s in ((0.1, 0.0), (0.13, 0.02)):
        budget = Level(tpot_s=target_s, ttft_weight=None)
        budget.start(2, costly, CHUNK_TOKENS)
        assert budget.limits(0, vectors).seconds.tolist() == pytest.approx([room_s] * 2)


def test_penalty_makes_whole_steps_go_without_prefill() -> None:
    costly = StepTime(
        fixed_s=0.01, prefill_s_per_token=1e-4, decode_s_per_seq=1e-3, mixed_penalty_s=0.2
    )
    budget = Level()
    budget.start(2, costly, CHUNK_TOKENS)
    vectors = vectors_of((50, 0, 0), (0, 0.05, 0.001))  # would be free without the penalty
    assert budget.limits(0, vectors).seconds.tolist() == [0, 0]
    assert started(Level(), 2).limits(0, vectors).seconds[1] > 0


def test_deadline_lifts_the_level_for_its_rank() -> None:
    vectors = vectors_of((50, 0, 0), (50, 0.1, 0.95))
    held = started(Level(growth=0.01), 2).limits(0, vectors).seconds[1]
    due = started(Level(growth=0.01, ttft_deadline_s=1.0), 2).limits(0, vectors).seconds[1]
    missed = started(Level(growth=0.01, ttft_deadline_s=0.5), 2).limits(0, vectors).seconds[1]
    assert due == pytest.approx(CHUNK_S)
    assert missed == held < due


def test_target_for_a_token_bounds_every_step() -> None:
    vectors = vectors_of((50, 1.0, 9.0), (50, 1.0, 9.0))
    for target_s in (0.05, 0.08):
        seconds = started(Level(tpot_s=target_s), 2).limits(0, vectors).seconds
        assert seconds[0] == pytest.approx(max(0.0, target_s - 0.06))


@pytest.mark.parametrize("field", ["growth", "ttft_weight", "ttft_deadline_s", "tpot_s"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_values_that_are_not_positive_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field} must be positive"):
        build("budget", {"name": "level", field: value})
