"""The rule of each balancer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpbal.balancers import BALANCERS, LeastLoad, PowerOfTwo, Ties, TotalTokens, Vllm
from dpbal.core import LoadTable
from dpbal.dispatcher import Dispatcher
from dpbal.ledger import Ledger
from tests.balancers.given import STEP_TIME, Given, ranks_chosen, report, request, view_of


def test_round_robin_takes_ranks_in_turn_and_skips_dead_ones() -> None:
    table = LoadTable(4)
    balancer = BALANCERS.build("round_robin", {})
    balancer.start(4, seed=6)
    view = view_of(table, [])
    assert [balancer.choose(request(0), view) for _ in range(5)] == [2, 3, 0, 1, 2]
    table.set_available(3, False)
    assert [balancer.choose(request(0), view) for _ in range(4)] == [0, 1, 2, 0]


def test_power_of_two_never_takes_the_worst_and_often_not_the_best() -> None:
    balancer = PowerOfTwo()
    balancer.start(4, seed=0)
    view = view_of(LoadTable(4), [4.0, 1.0, 3.0, 2.0])
    counts = np.bincount([balancer.choose(request(0), view) for _ in range(6000)], minlength=4)
    # of 6 pairs the best rank wins 3, the next 2, the next 1
    assert counts[0] == 0
    assert counts[[1, 3, 2]] == pytest.approx([3000, 2000, 1000], rel=0.1)


def test_power_of_two_shares_ties() -> None:
    balancer = PowerOfTwo()
    balancer.start(2, seed=0)
    view = view_of(LoadTable(2), [1.0, 1.0])
    counts = np.bincount([balancer.choose(request(0), view) for _ in range(4000)])
    assert counts == pytest.approx([2000, 2000], rel=0.1)


@given(loads=st.lists(st.floats(0, 1e6), min_size=1, max_size=12), ties=st.sampled_from(Ties))
def test_least_load_takes_a_rank_with_the_smallest(loads: list[float], ties: Ties) -> None:
    balancer = LeastLoad(ties)
    balancer.start(len(loads), seed=1)
    view = view_of(LoadTable(len(loads)), loads)
    for _ in range(3):
        assert loads[balancer.choose(request(0), view)] == min(loads)


@pytest.mark.parametrize("cls", [LeastLoad, TotalTokens])
def test_ties_rotate_or_go_to_the_first_or_to_any(
    cls: type[LeastLoad] | type[TotalTokens],
) -> None:
    view = view_of(LoadTable(4), [5.0, 2.0, 2.0, 2.0])

    def choices(ties: Ties, count: int) -> list[int]:
        balancer = cls(ties)
        balancer.start(4, seed=0)
        return [balancer.choose(request(0), view) for _ in range(count)]

    assert choices(Ties.rotate, 5) == [1, 2, 3, 1, 2]
    assert choices(Ties.first, 5) == [1, 1, 1, 1, 1]
    assert set(choices(Ties.random, 100)) == {1, 2, 3}


def test_total_tokens_settles_equal_loads_by_requests_in_flight_included() -> None:
    table = LoadTable(3)
    for rank, running in enumerate((3, 1, 2)):
        report(table, rank, running=running)
    balancer = TotalTokens(Ties.first)
    balancer.start(3, seed=0)
    dispatcher = Dispatcher(balancer, Given([7.0, 7.0, 7.0]), Ledger(3), table, STEP_TIME)
    # requests: 3 1 2, then 3 2 2, then 3 3 2
    assert ranks_chosen(dispatcher, 3) == [1, 1, 2]


def vllm_score(
    dispatchers: int, outstanding: int, waiting: int, running: int, kv_usage: float
) -> float:
    score: float = max(dispatchers * outstanding, waiting + running)
    if waiting:
        score += waiting * 6.0 * max(0.0, kv_usage - 0.5)
    return score


@given(
    ranks=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 10_000)),
        min_size=2,
        max_size=6,
    ),
    dispatchers=st.integers(1, 4),
    count=st.integers(1, 12),
)
def test_vllm_follows_its_score(
    ranks: list[tuple[int, int, int]], dispatchers: int, count: int
) -> None:
    table = LoadTable(len(ranks), dispatchers)
    for rank, (running, waiting, used) in enumerate(ranks):
        report(table, rank, running=running, waiting=waiting, kv_used_tokens=used)
    balancer = Vllm()
    balancer.start(len(ranks), seed=0)
    dispatcher = Dispatcher(balancer, Given(), Ledger(len(ranks)), table, STEP_TIME)
    sent = [0] * len(ranks)
    for number in range(count):
        order = [(number + k) % len(ranks) for k in range(len(ranks))]
        scores = {
            rank: vllm_score(
                dispatchers,
                sent[rank],
                ranks[rank][1] + dispatchers * sent[rank],
                ranks[rank][0],
                ranks[rank][2] / 10_000,
            )
            for rank in order
        }
        expected = min(order, key=lambda rank: scores[rank])
        assert dispatcher.dispatch(request(number), now=0.0).rank == expected
        sent[expected] += 1


@pytest.mark.parametrize(
    ("kv_weight", "kv_threshold", "message"),
    [
        (-1.0, 0.5, "kv_weight must be finite and not negative"),
        (6.0, 1.5, "kv_threshold must be from 0 to 1"),
    ],
)
def test_vllm_refuses_impossible_weights(
    kv_weight: float, kv_threshold: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Vllm(kv_weight, kv_threshold)
