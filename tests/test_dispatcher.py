"""Flow 1: the newest reports and what is in flight decide, and every choice is charged."""

from __future__ import annotations

import numpy as np
import pytest

from dpbal.balancers import BALANCERS
from dpbal.core import LoadTable, Placement, Request
from dpbal.dispatcher import Dispatcher
from dpbal.errors import ConfigError
from dpbal.indexers import INDEXERS, Indexer
from dpbal.ledger import Ledger
from dpbal.modes import LedgerMode
from dpbal.signals import SIGNALS
from dpbal.step_time import StepTime


def request(number: int, tokens: int = 100, pinned_rank: int | None = None) -> Request:
    return Request(number, 0.0, tokens, max_tokens=1, pinned_rank=pinned_rank)


def dispatcher_of(
    table: LoadTable, mode: LedgerMode = LedgerMode.acknowledge, number: int = 0
) -> Dispatcher:
    """A dispatcher that sends each request where the fewest tokens are held and in flight."""
    balancer = BALANCERS.build("minimum_tokens", {})
    balancer.start(table.ranks, seed=0)
    signal = SIGNALS.build("sum", {"terms": {"holding_tokens": 1.0, "in_flight": 1.0}})
    ledger = Ledger(table.ranks, number, mode=mode)
    return Dispatcher(balancer, signal, ledger, table, StepTime(prefill_s_per_token=1e-3))


def prefix_dispatcher_of(
    table: LoadTable, indexer: Indexer | None = None, number: int = 0
) -> Dispatcher:
    """A dispatcher that sends each request mostly where its prefix is."""
    balancer = BALANCERS.build("least_prefill", {"miss_weight": 8.0})
    balancer.start(table.ranks, seed=0)
    if indexer is None:
        indexer = INDEXERS.build("own_record", {})
        indexer.start(table.ranks, 100_000)
    signal = SIGNALS.build("in_flight", {"unit": "seconds"})
    step_time = StepTime(prefill_s_per_token=1e-3)
    return Dispatcher(balancer, signal, Ledger(table.ranks, number), table, step_time, indexer)


def publish(
    table: LoadTable, rank: int, holding_tokens: int, received: int = 0, dispatcher: int = 0
) -> None:
    table.reports[rank]["epoch"] = 1
    table.reports[rank]["version"] += 1
    table.reports[rank]["holding_tokens"] = holding_tokens
    table.received_sequence[rank, dispatcher] = received
    table.received_epoch[rank, dispatcher] = 1
    table.update_selectable()


def test_places_in_order_and_charges() -> None:
    dispatcher = dispatcher_of(LoadTable(2))
    placements = [dispatcher.dispatch(request(i, tokens=100 - i), now=0.0) for i in range(3)]
    assert [(p.rank, p.sequence) for p in placements] == [(0, 1), (1, 2), (1, 3)]
    in_flight = dispatcher.ledger.in_flight
    assert in_flight.tokens.tolist() == [100, 197]
    assert in_flight.prefill_s == pytest.approx([0.1, 0.197])


def test_sees_the_report_that_came_last() -> None:
    table = LoadTable(2)
    dispatcher = dispatcher_of(table)
    publish(table, 0, holding_tokens=0)
    publish(table, 1, holding_tokens=5000)
    assert dispatcher.dispatch(request(0), now=0.0).rank == 0
    publish(table, 0, holding_tokens=9000)
    assert dispatcher.dispatch(request(1), now=0.0).rank == 1


def test_counts_a_dispatch_once_when_its_rank_reports_it() -> None:
    table = LoadTable(2)
    dispatcher = dispatcher_of(table)
    for rank in range(2):
        publish(table, rank, holding_tokens=0)
    dispatcher.dispatch(request(0, tokens=1000), now=0.0)
    publish(table, 0, holding_tokens=1000, received=1)
    # counted twice it would be 2000, and rank 0 the busier one
    publish(table, 1, holding_tokens=1500)
    assert dispatcher.dispatch(request(1), now=0.0).rank == 0


@pytest.mark.parametrize(("mode", "rank"), [(LedgerMode.acknowledge, 1), (LedgerMode.overwrite, 0)])
def test_a_stale_report_hides_a_burst_only_from_a_ledger_that_overwrites(
    mode: LedgerMode, rank: int
) -> None:
    table = LoadTable(2)
    dispatcher = dispatcher_of(table, mode)
    publish(table, 0, holding_tokens=0)
    publish(table, 1, holding_tokens=500)
    assert dispatcher.dispatch(request(0, tokens=2000), now=0.0).rank == 0
    publish(table, 0, holding_tokens=0)  # made before the request arrived
    assert dispatcher.dispatch(request(1), now=0.0).rank == rank


def test_a_pinned_request_goes_where_it_is_pinned_and_is_charged() -> None:
    dispatcher = dispatcher_of(LoadTable(3))
    assert [dispatcher.dispatch(request(i, 100, 2), now=0.0).rank for i in range(3)] == [2, 2, 2]
    assert dispatcher.ledger.in_flight.tokens.tolist() == [0, 0, 300]
    assert [dispatcher.dispatch(request(i, 100), now=0.0).rank for i in (3, 4, 5)] == [0, 1, 0]


@pytest.mark.parametrize("rank", [-1, 3])
def test_a_pin_to_a_rank_that_is_not_there_is_a_mistake(rank: int) -> None:
    dispatcher = dispatcher_of(LoadTable(3))
    with pytest.raises(ConfigError, match=rf"pinned to rank {rank}; ranks are 0 to 2"):
        dispatcher.dispatch(request(0, 100, rank), now=0.0)
    assert dispatcher.ledger.outstanding.tolist() == [0, 0, 0]


def test_finish_ends_a_request_once() -> None:
    dispatcher = dispatcher_of(LoadTable(2))
    dispatcher.dispatch(request(0), now=0.0)
    dispatcher.finish(0)
    dispatcher.finish(0)
    assert dispatcher.ledger.outstanding.tolist() == [0, 0]
    assert dispatcher.ledger.in_flight.tokens.tolist() == [0, 0]
    assert dispatcher.ledger.unknown_releases == 1


def test_dispatchers_share_reports_and_nothing_else() -> None:
    table = LoadTable(2, dispatchers=2)
    first, second = (dispatcher_of(table, number=number) for number in range(2))
    for rank in range(2):
        publish(table, rank, holding_tokens=0)
    assert first.dispatch(request(0), now=0.0).rank == 0
    assert second.dispatch(request(0), now=0.0).rank == 0
    publish(table, 0, holding_tokens=100, received=1, dispatcher=0)
    assert first.dispatch(request(1), now=0.0).rank == 1
    assert first.ledger.in_flight.tokens.tolist() == [0, 100]
    assert second.ledger.in_flight.tokens.tolist() == [100, 0]


def test_what_a_rank_is_expected_to_hold_is_not_charged_as_prefill() -> None:
    table = LoadTable(2)
    dispatcher = prefix_dispatcher_of(table)
    first = Request(0, 0.0, 1000, block_hashes=np.arange(9), block_tokens=100)
    assert dispatcher.dispatch(first, now=0.0) == Placement(0, 1, 0)
    again = Request(1, 0.0, 1000, block_hashes=np.arange(9), block_tokens=100)
    assert dispatcher.dispatch(again, now=0.1) == Placement(0, 2, 900)
    in_flight = dispatcher.ledger.in_flight
    assert in_flight.tokens.tolist() == [2000, 0]
    assert in_flight.prefill_tokens.tolist() == [1100, 0]
    assert in_flight.prefill_s == pytest.approx([1.1, 0.0])


def test_a_pinned_request_is_expected_to_hit_where_it_is_pinned() -> None:
    dispatcher = prefix_dispatcher_of(LoadTable(2))
    hashes = np.arange(9)
    placements = [
        dispatcher.dispatch(Request(k, 0.0, 1000, None, hashes, None, 1, 100), now=0.0)
        for k in range(2)
    ]
    assert placements == [Placement(1, 1, 0), Placement(1, 2, 900)]


def test_the_last_token_of_a_prompt_is_never_expected_to_be_cached() -> None:
    dispatcher = prefix_dispatcher_of(LoadTable(1))
    whole = [Request(k, 0.0, 900, block_hashes=np.arange(9), block_tokens=100) for k in range(2)]
    assert [dispatcher.dispatch(r, now=0.0).cached_tokens for r in whole] == [0, 899]


def test_a_restarted_rank_is_expected_to_hold_nothing() -> None:
    table = LoadTable(2)
    dispatcher = prefix_dispatcher_of(table)
    for rank in range(2):
        publish(table, rank, holding_tokens=0)
    hashes = np.arange(9)
    dispatcher.dispatch(Request(0, 0.0, 1000, block_hashes=hashes, block_tokens=100), now=0.0)
    table.reports[0]["epoch"] = 2
    table.update_selectable()
    again = Request(1, 0.0, 1000, block_hashes=hashes, block_tokens=100)
    assert dispatcher.dispatch(again, now=1.0).cached_tokens == 0


def test_a_restart_is_forgotten_once_by_dispatchers_that_share_an_index() -> None:
    table = LoadTable(2, dispatchers=2)
    shared = INDEXERS.build("shared_record", {})
    shared.start(2, 100_000)
    first, second = (prefix_dispatcher_of(table, shared, number) for number in range(2))
    for rank in range(2):
        publish(table, rank, holding_tokens=0)
    for dispatcher in (first, second):
        dispatcher.observe()
    table.reports[0]["epoch"] = 2
    table.update_selectable()
    hashes = np.arange(9)
    asked = [
        Request(k, 0.0, 1000, block_hashes=hashes, block_tokens=100, pinned_rank=0)
        for k in range(2)
    ]
    assert first.dispatch(asked[0], now=1.0).cached_tokens == 0
    assert second.dispatch(asked[1], now=1.0).cached_tokens == 900


def test_a_balancer_that_asks_what_ranks_hold_needs_somebody_to_ask() -> None:
    balancer = BALANCERS.build("lmetric", {})
    signal = SIGNALS.build("requests", {})
    with pytest.raises(ConfigError, match="give an indexer that has been started"):
        Dispatcher(balancer, signal, Ledger(2), LoadTable(2), StepTime())
