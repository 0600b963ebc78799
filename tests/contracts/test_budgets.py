"""What every budget must do, and the rule of each, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pytest

from dpbal.budgets import BUDGETS, UNLIMITED, Aligned, Budget, Interval
from dpbal.core import VECTOR
from dpbal.errors import ConfigError
from dpbal.step_time import StepTime

B = TypeVar("B", bound=Budget)
STEP_TIME = StepTime(prefill_s_per_token=1e-4, decode_s_per_seq=1e-4)
CHUNK_TOKENS = 2048


@pytest.fixture(params=sorted(BUDGETS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def started(budget: B, ranks: int) -> B:
    budget.start(ranks, STEP_TIME, CHUNK_TOKENS)
    return budget


def vectors_of(decodes: Sequence[int], prefills: Sequence[int], bound: int = 0) -> np.ndarray:
    """Vectors of ranks with so many decodes and prefills; the first ``bound`` ranks are bound."""
    vectors = np.zeros(len(decodes), VECTOR)
    vectors["decode_seqs"] = decodes
    vectors["decode_s"] = np.array(decodes) * 1e-4
    vectors["prefill_requests"] = prefills
    vectors["prefill_s"] = np.array(prefills) * 0.1
    vectors["wait_s"] = np.array(prefills) * 0.05
    vectors["oldest_wait_s"] = np.minimum(vectors["wait_s"], 0.05)
    vectors["capacity_bound"][:bound] = True
    return vectors


def random_vectors(steps: int, ranks: int = 4) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [
        vectors_of(
            generator.integers(0, 3, ranks).tolist(),
            generator.integers(0, 2, ranks).tolist(),
            bound=int(generator.integers(0, ranks)),
        )
        for _ in range(steps)
    ]


def run(budget: Budget, vectors: list[np.ndarray]) -> list[tuple[list[int], list[float]]]:
    result = []
    for step, vector in enumerate(vectors):  # limits are valid until the next call
        limits = budget.limits(step, vector)
        result.append((limits.tokens.tolist(), limits.seconds.tolist()))
    return result


def test_limits_every_rank_by_something_not_negative(name: str) -> None:
    for ranks in (1, 5):
        budget = started(BUDGETS.build(name, {}), ranks)
        for step, vectors in enumerate(random_vectors(60, ranks)):
            limits = budget.limits(step, vectors)
            assert limits.tokens.shape == limits.seconds.shape == (ranks,)
            assert limits.tokens.dtype == np.int64
            assert limits.seconds.dtype == np.float64
            assert (limits.tokens >= 0).all()
            assert (limits.seconds >= 0).all()


def test_follows_from_the_vectors_alone(name: str) -> None:
    vectors = random_vectors(200)
    one, other = (started(BUDGETS.build(name, {}), 4) for _ in range(2))
    assert run(one, vectors) == run(other, [vector.copy() for vector in vectors])


def test_starts_afresh(name: str) -> None:
    vectors = random_vectors(30)
    budget = started(BUDGETS.build(name, {}), 4)
    first = run(budget, vectors)
    assert run(started(budget, 4), vectors) == first


def test_leaves_the_vectors_as_they_are(name: str) -> None:
    budget = started(BUDGETS.build(name, {}), 4)
    for step, vectors in enumerate(random_vectors(30)):
        before = vectors.copy()
        budget.limits(step, vectors)
        assert (vectors == before).all()


def test_says_truly_whether_it_is_static(name: str) -> None:
    budget = started(BUDGETS.build(name, {}), 4)
    limits = run(budget, random_vectors(200))
    assert all(limit == limits[0] for limit in limits) == budget.is_static


def test_lets_prefill_through_in_the_end(name: str) -> None:
    budget = started(BUDGETS.build(name, {}), 4)
    one_waits = vectors_of(decodes=[5, 5, 5, 5], prefills=[0, 1, 0, 0])
    one_waits["step_s"] = 0.1
    limits = run(budget, [one_waits] * 1000)
    assert any(tokens[1] > 0 and seconds[1] > 0 for tokens, seconds in limits)


def test_fixed_limits_nothing() -> None:
    limits = started(BUDGETS.build("fixed", {}), 3).limits(0, random_vectors(1, 3)[0])
    assert limits.tokens.tolist() == [UNLIMITED] * 3
    assert limits.seconds.tolist() == [np.inf] * 3


def interval_holds(interval: int, step: int, vectors: np.ndarray) -> list[bool]:
    limits = started(Interval(interval), len(vectors)).limits(step, vectors)
    assert set(limits.tokens.tolist()) <= {0, UNLIMITED}
    return [tokens == 0 for tokens in limits.tokens]


def test_interval_holds_ranks_that_decode_between_its_steps() -> None:
    vectors = vectors_of(decodes=[3, 0, 1], prefills=[1, 1, 0])
    held = [interval_holds(3, step, vectors) for step in range(7)]
    between = [True, False, True]
    free = [False, False, False]
    assert held == [free, between, between, free, between, between, free]


def test_interval_spares_ranks_bound_by_capacity() -> None:
    vectors = vectors_of(decodes=[3, 3, 0], prefills=[1, 1, 1], bound=1)
    assert interval_holds(2, 1, vectors) == [False, True, False]


def test_interval_of_one_limits_nothing() -> None:
    vectors = vectors_of(decodes=[3, 3], prefills=[1, 1])
    assert [interval_holds(1, step, vectors) for step in range(3)] == [[False, False]] * 3


def aligned_releases(budget: Aligned, vectors: list[np.ndarray]) -> list[bool]:
    """In which steps prefill goes ahead; the limits are those of all ranks or of none."""
    released = []
    for step, vector in enumerate(vectors):
        tokens = set(budget.limits(step, vector).tokens.tolist())
        assert tokens in ({0}, {UNLIMITED})
        released.append(tokens == {UNLIMITED})
    return released


ALL = vectors_of(decodes=[2, 2, 2], prefills=[1, 3, 1])
SOME = vectors_of(decodes=[2, 2, 2], prefills=[1, 0, 1])
NONE = vectors_of(decodes=[2, 2, 2], prefills=[0, 0, 0])


def test_aligned_gathers_once_all_ranks_have_prefill() -> None:
    budget = started(Aligned(timeout_iters=50, batching_wait_iters=2), 3)
    assert aligned_releases(budget, [SOME, SOME, ALL, ALL, ALL]) == [False] * 4 + [True]
    assert aligned_releases(budget, [ALL, ALL, ALL]) == [False, False, True]


def test_aligned_without_gathering_goes_at_once() -> None:
    budget = started(Aligned(batching_wait_iters=0), 3)
    assert aligned_releases(budget, [SOME, ALL, SOME]) == [False, True, False]


def test_aligned_times_out() -> None:
    budget = started(Aligned(timeout_iters=4), 3)
    assert aligned_releases(budget, [SOME] * 9) == ([False] * 3 + [True]) * 2 + [False]


def test_aligned_counts_steps_without_any_prefill_too() -> None:
    budget = started(Aligned(timeout_iters=4), 3)
    assert aligned_releases(budget, [NONE, NONE, SOME, SOME]) == [False, False, False, True]


def test_aligned_begins_to_count_anew_when_all_ranks_have_prefill() -> None:
    budget = started(Aligned(timeout_iters=3, batching_wait_iters=1), 3)
    assert aligned_releases(budget, [SOME, SOME, ALL, SOME, SOME, SOME]) == [False] * 5 + [True]


@pytest.mark.parametrize("prefills", [[1, 0, 0], [1, 1, 1]])
def test_aligned_waits_for_nothing_where_a_rank_has_only_prefill(prefills: list[int]) -> None:
    nobody_delayed = vectors_of(decodes=[0, 2, 2], prefills=prefills)
    assert aligned_releases(started(Aligned(), 3), [nobody_delayed] * 3) == [True] * 3


def test_aligned_takes_an_idle_rank_for_one_that_decodes() -> None:
    one_is_idle = vectors_of(decodes=[2, 0, 2], prefills=[1, 0, 0])
    assert aligned_releases(started(Aligned(timeout_iters=2), 3), [one_is_idle] * 2) == [
        False,
        True,
    ]


def test_aligned_may_ask_for_fewer_ranks() -> None:
    budget = started(Aligned(ranks=2, batching_wait_iters=1), 3)
    assert aligned_releases(budget, [SOME, SOME, SOME, SOME]) == [False, True, False, True]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("interval", {"interval_steps": 0}, "interval_steps must be at least 1, got 0"),
        ("aligned", {"ranks": 0}, "ranks must be at least 1, or null for all, got 0"),
        ("aligned", {"timeout_iters": 0}, "timeout_iters must be at least 1, got 0"),
        ("aligned", {"batching_wait_iters": -1}, "batching_wait_iters must not be negative"),
    ],
)
def test_impossible_values_are_refused(name: str, fields: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BUDGETS.build(name, fields)


def test_aligned_refuses_more_ranks_than_there_are() -> None:
    with pytest.raises(ConfigError, match=r"waits for 9 ranks, but the group has 8; .*up to 8"):
        Aligned(ranks=9).start(8, STEP_TIME, CHUNK_TOKENS)
