"""What every balancer must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import dpbal
from dpbal.balancers import BALANCERS, Balancer, ConsistentHash, Random
from dpbal.config import Config
from dpbal.core import LoadTable, Request, View
from dpbal.dispatcher import Dispatcher
from dpbal.errors import ConfigError
from dpbal.experiment import Experiment
from dpbal.indexers import OwnRecord
from dpbal.ledger import Ledger
from dpbal.parts import build_dispatcher
from dpbal.signals import Unit
from tests.balancers.given import (
    STEP_TIME,
    Given,
    ranks_chosen,
    report,
    request,
    view_of,
    view_of_prefixes,
)

NAMES = sorted(name for name in BALANCERS if BALANCERS[name].chooses)


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
            prefill_tokens=int(generator.integers(0, 9000)),
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
        return build_dispatcher(replace(config, seed=seed), table, number=0)

    return make


Make = Callable[..., Dispatcher]


def test_spreads_identical_requests_over_idle_ranks(name: str, dispatcher: Make) -> None:
    counts = np.bincount(ranks_chosen(dispatcher(LoadTable(8)), 800), minlength=8)
    if BALANCERS[name] is Random:
        assert 50 < counts.min() <= counts.max() < 150  # five standard deviations
    elif BALANCERS[name] is ConsistentHash:
        assert 50 < counts.min() <= counts.max() <= 125  # bounded at 1.25 times the mean
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
    indexer = None
    if balancer.uses_prefixes:
        indexer = OwnRecord()
        indexer.start(3, 1000)
    dispatcher = Dispatcher(balancer, signal, Ledger(3), LoadTable(3), STEP_TIME, indexer)
    ranks_chosen(dispatcher, 10)
    assert (signal.asked > 0) == balancer.uses_signal


def test_says_truly_whether_reports_matter(name: str, dispatcher: Make) -> None:
    def choices(seed: int) -> tuple[int, ...]:
        table = LoadTable(8)
        random_reports(table, seed)
        return tuple(ranks_chosen(dispatcher(table), 10))

    differ = len({choices(seed) for seed in range(5)}) > 1
    assert differ == BALANCERS[name].uses_reports


class Watched:
    """A view that remembers what was read of it."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self._view, name)


OF_PREFIXES = {"cached_tokens", "own_prefill_s", "cached_blocks"}
WITH_MISSES = ["fewest_requests", "least_prefill", "minimum_tokens"]


def prefixes_read(balancer: Balancer, unit: Unit) -> set[str]:
    """What a rule reads of what ranks hold, over requests with and without sessions and hashes."""
    balancer.start(3, seed=0)
    read = set()
    for number in range(6):
        hashes = np.arange(2) if number % 2 else None
        session = number if number > 3 else None
        one = Request(number, 0.0, 1024, block_hashes=hashes, session=session)
        watched = Watched(view_of_prefixes(LoadTable(3), one, [0, 512, 0], [3.0, 2.0, 1.0], unit))
        balancer.choose(one, watched)  # type: ignore[arg-type]
        read |= watched.read & OF_PREFIXES
    return read


@pytest.mark.parametrize("unit", [Unit.seconds, Unit.tokens])
def test_reads_what_ranks_hold_where_it_says_so(name: str, unit: Unit) -> None:
    balancer = BALANCERS.build(name, {})
    assert bool(prefixes_read(balancer, unit)) == balancer.uses_prefixes


@pytest.mark.parametrize("unit", [Unit.seconds, Unit.tokens])
@pytest.mark.parametrize("name", WITH_MISSES)
def test_reads_what_ranks_hold_where_it_weighs_misses(name: str, unit: Unit) -> None:
    balancer = BALANCERS.build(name, {"miss_weight": 4.0})
    assert balancer.uses_prefixes
    assert prefixes_read(balancer, unit)


@pytest.mark.parametrize("name", [n for n in NAMES if BALANCERS.build(n, {}).uses_prefixes])
def test_a_prompt_that_was_seen_goes_where_it_was_in_an_idle_group(dispatcher: Make) -> None:
    target = dispatcher(LoadTable(8))
    hashes = np.arange(10)
    chosen = set()
    for number in range(12):
        one = Request(number, 0.0, 5120, block_hashes=hashes)
        placed = target.dispatch(one, now=float(number))
        assert placed.cached_tokens == (5119 if number else 0)
        chosen.add(placed.rank)
        other = Request(f"other {number}", 0.0, 5120, block_hashes=100 * (number + 1) + hashes)
        assert target.dispatch(other, now=float(number)).cached_tokens == 0
        target.finish(number)
        target.finish(f"other {number}")
    assert len(chosen) == 1


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


def test_of_requests_released_together_each_is_placed_once(dispatcher: Make) -> None:
    table = LoadTable(4)
    random_reports(table, seed=4)
    waiting = [request(number, tokens=100 + 37 * number % 60) for number in range(20)]
    placed = dispatcher(table).dispatch_together(waiting, now=0.0)
    assert sorted(int(one.id) for one, _ in placed) == list(range(20))
    assert [placement.sequence for _, placement in placed] == list(range(1, 21))


def test_a_request_does_not_tell_its_output() -> None:
    assert not [name for name in Request.__struct_fields__ if "output" in name]
