"""What every balancer must do, and the rule of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dpbal
from dpbal.balancers import BALANCERS, LeastLoad, PowerOfTwo, Random, Ties, TotalTokens, Vllm
from dpbal.config import Config
from dpbal.core import LoadTable, Request, View
from dpbal.dispatcher import Dispatcher
from dpbal.errors import ConfigError
from dpbal.experiment import Experiment
from dpbal.ledger import Ledger
from dpbal.parts import build
from dpbal.signals import Signal, Unit
from dpbal.step_time import StepTime

NAMES = sorted(name for name in BALANCERS if BALANCERS[name].chooses)
STEP_TIME = StepTime(prefill_s_per_token=1e-4, attention_s_per_pair=1e-8)


@dataclass
class Given(Signal):
    """Loads as the test gives them, and how often they were asked for."""

    loads: list[float] = field(default_factory=list)
    asked: int = 0

    @property
    def counts(self) -> Unit:
        return Unit.tokens

    def load(self, view: View) -> np.ndarray:
        self.asked += 1
        return np.array(self.loads, float)


def request(number: int, tokens: int = 100) -> Request:
    return Request(id=number, arrival_s=0.0, prompt_tokens=tokens, max_tokens=10)


def report(table: LoadTable, rank: int, **fields: float) -> None:
    """Publish a report of one rank that covers nothing."""
    table.reports[rank]["epoch"] = 1
    table.reports[rank]["version"] += 1
    table.reports[rank]["kv_capacity_tokens"] = 10_000
    for name, value in fields.items():
        table.reports[rank][name] = value
    table.update_selectable()


def random_reports(table: LoadTable, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for rank in range(table.ranks):
        report(
            table,
            rank,
            running=int(generator.integers(0, 50)),
            waiting=int(generator.integers(0, 5)),
            holding_tokens=int(generator.integers(0, 9000)),
            kv_used_tokens=int(generator.integers(0, 9000)),
            prefill_s=float(generator.random()),
        )


@cache
def config_of(name: str) -> Config:
    return dpbal.compose(f"balancer={name}")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dispatcher(name: str) -> Callable[..., Dispatcher]:
    """Makes a dispatcher with the balancer as its yaml has it, its own signal included."""
    config = config_of(name)

    def make(table: LoadTable, seed: int = 0) -> Dispatcher:
        balancer = build("balancer", config.balancer)
        balancer.start(table.ranks, seed)
        ledger = Ledger(table.ranks)
        return Dispatcher(balancer, build("signal", config.signal), ledger, table, STEP_TIME)

    return make


Make = Callable[..., Dispatcher]


def ranks_chosen(dispatcher: Dispatcher, count: int) -> list[int]:
    return [dispatcher.dispatch(request(i), now=0.0).rank for i in range(count)]


def test_spreads_identical_requests_over_idle_ranks(name: str, dispatcher: Make) -> None:
    counts = np.bincount(ranks_chosen(dispatcher(LoadTable(8)), 800), minlength=8)
    if BALANCERS[name] is Random:
        assert 50 < counts.min() <= counts.max() < 150  # five standard deviations
    else:
        assert counts.max() - counts.min() <= 2


def test_gives_a_plain_rank_number(dispatcher: Make) -> None:
    table = LoadTable(3)
    random_reports(table, seed=5)
    assert {type(rank) for rank in ranks_chosen(dispatcher(table), 10)} == {int}


@pytest.mark.parametrize("ranks", [1, 2, 8, 33])
def test_chooses_only_selectable_ranks(dispatcher: Make, ranks: int) -> None:
    generator = np.random.default_rng(ranks)
    table = LoadTable(ranks)
    target = dispatcher(table)
    for number in range(60):
        random_reports(table, seed=number)
        for rank in range(ranks):
            table.set_available(rank, bool(generator.random() < 0.4))
        assert table.selectable[target.dispatch(request(number), now=float(number)).rank]


def test_chooses_the_only_rank_left(dispatcher: Make) -> None:
    table = LoadTable(8)
    random_reports(table, seed=0)
    report(table, 5, running=200, waiting=90, holding_tokens=10_000, kv_used_tokens=10_000)
    for rank in range(8):
        table.set_available(rank, rank == 5)
    assert set(ranks_chosen(dispatcher(table), 20)) == {5}


def test_leaves_out_ranks_that_have_not_reported(dispatcher: Make) -> None:
    table = LoadTable(8)
    for rank in (2, 3, 6):
        report(table, rank, running=40, waiting=3, holding_tokens=8000, kv_used_tokens=8000)
    assert set(ranks_chosen(dispatcher(table), 60)) == {2, 3, 6}


def test_same_seed_same_choices(dispatcher: Make) -> None:
    def choices(seed: int) -> list[int]:
        table = LoadTable(8)
        random_reports(table, seed=1)
        return ranks_chosen(dispatcher(table, seed), 100)

    assert choices(7) == choices(7)


def test_writes_nothing_that_it_sees(dispatcher: Make) -> None:
    table = LoadTable(4)
    random_reports(table, seed=2)
    reports, selectable = table.reports.copy(), table.selectable.copy()
    ranks_chosen(dispatcher(table), 20)
    assert (table.reports == reports).all()
    assert (table.selectable == selectable).all()


def test_says_truly_whether_it_reads_the_signal(name: str) -> None:
    signal = Given([3.0, 1.0, 2.0])
    balancer = BALANCERS.build(name, {})
    balancer.start(3, seed=0)
    dispatcher = Dispatcher(balancer, signal, Ledger(3), LoadTable(3), STEP_TIME)
    ranks_chosen(dispatcher, 10)
    assert (signal.asked > 0) == balancer.uses_signal


def test_says_truly_whether_reports_matter(name: str, dispatcher: Make) -> None:
    def choices(seed: int) -> tuple[int, ...]:
        table = LoadTable(8)
        random_reports(table, seed)
        return tuple(ranks_chosen(dispatcher(table), 10))

    differ = len({choices(seed) for seed in range(5)}) > 1
    assert differ == BALANCERS[name].uses_reports


@pytest.mark.parametrize("name", sorted(set(BALANCERS) - set(NAMES)))
def test_one_that_leaves_the_choice_to_vllm_is_refused_where_vllm_is_not(name: str) -> None:
    balancer = BALANCERS.build(name, {})
    balancer.start(2, seed=0)
    with pytest.raises(ConfigError, match="type backend=vllm, or balancer=vllm") as asked:
        balancer.choose(request(0), view_of(LoadTable(2), []))
    with pytest.raises(ConfigError, match=f"{name}.*type backend=vllm, or balancer=vllm") as run:
        Experiment(dpbal.compose(f"balancer={name}", "workload.requests=10", "workload.rate=1"))
    assert "\n" not in str(asked.value) + str(run.value)
    assert not BALANCERS[name].uses_signal
    assert not BALANCERS[name].uses_reports


def test_a_request_does_not_tell_its_output() -> None:
    assert not [name for name in Request.__struct_fields__ if "output" in name]


def view_of(table: LoadTable, loads: list[float]) -> View:
    ledger = Ledger(table.ranks)
    return View(table, ledger.in_flight, ledger.outstanding, Given(loads), STEP_TIME)


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
