"""BalanceRoute's rule is the least decode load, and pays where groups only decode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpbal.balancers import BALANCERS, DecodeMargin
from dpbal.composition import compose
from dpbal.core import LoadTable
from dpbal.dispatcher import Dispatcher
from dpbal.experiment import Experiment
from dpbal.ledger import Ledger
from dpbal.progress import Progress
from dpbal.signals import DecodeLoad
from dpbal.step_time import StepTime
from tests.balancers.given import report, request, view_of

STEP_TIME = StepTime(kv_s_per_token=1e-6)  # a token of context is a microsecond


def dispatcher_of(table: LoadTable) -> Dispatcher:
    balancer = DecodeMargin()
    balancer.start(table.ranks, seed=0)
    return Dispatcher(balancer, DecodeLoad(), Ledger(table.ranks), table, STEP_TIME)


@given(
    loads=st.lists(st.integers(0, 1000), min_size=1, max_size=12),
    own=st.integers(0, 2000),
)
def test_its_choice_has_the_best_score_of_balance_route_for_any_request(
    loads: list[int], own: int
) -> None:
    balancer = DecodeMargin()
    balancer.start(len(loads), seed=1)
    margins = max(loads) - np.array(loads)
    scores = own - len(loads) * np.maximum(own - margins, 0)
    chosen = balancer.choose(request(0), view_of(LoadTable(len(loads)), [float(x) for x in loads]))
    assert scores[chosen] == scores.max()
    assert loads[chosen] == min(np.array(loads)[scores == scores.max()])


def test_what_is_on_its_way_counts_with_its_context() -> None:
    table = LoadTable(3)
    for rank, held in enumerate((0, 500, 900)):
        report(table, rank, running=1, holding_tokens=held)
    dispatcher = dispatcher_of(table)
    # 0 500 900, then 700 500 900, then 700 900 900
    ranks = [
        dispatcher.dispatch(request(number, tokens), 0.0).rank
        for number, tokens in enumerate((700, 400, 10))
    ]
    assert ranks == [0, 1, 0]


def placed_together(name: str, sizes: list[int]) -> list[int]:
    """Tokens of each of two idle ranks."""
    table = LoadTable(2)
    dispatcher = dispatcher_of(table)
    dispatcher.balancer = BALANCERS.build(name, {})
    dispatcher.balancer.start(2, seed=0)
    waiting = [request(number, tokens) for number, tokens in enumerate(sizes)]
    placed = dispatcher.dispatch_together(waiting, 0.0)
    assert [placement.sequence for _, placement in placed] == list(range(1, len(sizes) + 1))
    assert sorted(int(one.id) for one, _ in placed) == list(range(len(sizes)))
    tokens = [0, 0]
    for one, placement in placed:
        tokens[placement.rank] += one.prompt_tokens
    return tokens


def test_requests_released_together_are_placed_the_largest_first() -> None:
    sizes = [100, 100, 100, 300]
    assert sorted(placed_together("decode_margin", sizes)) == [300, 300]
    assert sorted(placed_together("minimum_tokens", sizes)) == [200, 400]  # as they came


@pytest.mark.parametrize("seed", [0, 1])
def test_a_group_that_only_decodes_waits_less_than_with_requests_in_turn_or_by_count(
    seed: int,
) -> None:
    def mean_e2e_s(balancer: str) -> float:
        config = compose(
            f"balancer={balancer}",
            "profile=lds_prototype",
            "profile.prefill_s_per_token=0",
            "profile.attention_s_per_pair=0",
            "profile.common_s_per_token=0",
            "backend.max_num_batched_tokens=131072",
            "workload=reasoning",
            "workload.requests=1000",
            "workload.load=0.85",
            f"seed={seed}",
        )
        rows = Experiment(config).run(Progress(enabled=False)).requests
        return float((rows["finish_s"] - rows["arrival_s"]).mean())

    own, count, turn = map(mean_e2e_s, ("decode_margin", "fewest_requests", "round_robin"))
    assert own < count < turn
