"""Rules that give a session or a prefix the same rank again, without an index."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpbal.balancers import BALANCERS, ConsistentHash, SessionAffinity
from dpbal.core import LoadTable, Request, View
from dpbal.errors import ConfigError
from tests.balancers.given import view_of


def of_session(session: int | str, number: int = 0) -> Request:
    return Request(number, 0.0, 100, session=session)


def ring(ranks: int, **fields: Any) -> ConsistentHash:
    balancer = ConsistentHash(**fields)
    balancer.start(ranks, seed=0)
    return balancer


class TestConsistentHash:
    def owners(self, balancer: ConsistentHash, view: View, keys: int = 2000) -> list[int]:
        return [balancer.choose(of_session(key), view) for key in range(keys)]

    def test_keys_are_spread_over_all_ranks(self) -> None:
        counts = Counter(self.owners(ring(8), view_of(LoadTable(8), [])))
        assert len(counts) == 8
        assert all(150 < count < 350 for count in counts.values())

    @pytest.mark.parametrize("seed", [0, 5])
    def test_all_dispatchers_agree(self, seed: int) -> None:
        view = view_of(LoadTable(8), [])
        other = ConsistentHash()
        other.start(8, seed)
        assert self.owners(ring(8), view) == self.owners(other, view)

    @pytest.mark.parametrize("gone", [0, 3])
    def test_a_rank_that_goes_moves_only_its_own_keys(self, gone: int) -> None:
        table = LoadTable(4)
        view, balancer = view_of(table, []), ring(4, max_load=None)
        before = self.owners(balancer, view)
        table.set_available(gone, False)
        after = self.owners(balancer, view)
        moved = {rank for rank, now in zip(before, after, strict=True) if rank != now}
        assert moved == {gone}
        heirs = {now for rank, now in zip(before, after, strict=True) if rank == gone}
        assert heirs == set(range(4)) - {gone}
        table.set_available(gone, True)
        assert self.owners(balancer, view) == before

    def test_the_key_is_the_session_then_the_prefix_then_the_request(self) -> None:
        view, balancer = view_of(LoadTable(64), []), ring(64, prefix_blocks=2)

        def ranks(*requests: Request) -> int:
            return len({balancer.choose(one, view) for one in requests})

        def prompt(number: int, *hashes: int, session: int | None = None) -> Request:
            return Request(number, 0.0, 5000, block_hashes=np.array(hashes), session=session)

        assert ranks(*(prompt(k, k, k, session=7) for k in range(30))) == 1
        assert ranks(*(prompt(k, 1, 2, k) for k in range(30))) == 1
        assert ranks(*(prompt(k, 1, 100 + k, 3) for k in range(30))) > 10
        assert ranks(*(prompt(k, 1) for k in range(30))) == 1  # all that it has
        assert ranks(*(Request(k, 0.0, 100) for k in range(30))) > 10
        assert ranks(*(prompt(k) for k in range(30))) > 10  # too short for a block

    @given(
        outstanding=st.lists(st.integers(0, 9), min_size=2, max_size=6),
        available=st.lists(st.booleans(), min_size=6, max_size=6),
        max_load=st.sampled_from([1.0, 1.25, 2.0]),
        key=st.integers(0, 50),
    )
    def test_takes_the_next_rank_with_room(
        self, outstanding: list[int], available: list[bool], max_load: float, key: int
    ) -> None:
        ranks = len(outstanding)
        table = LoadTable(ranks)
        for rank in range(ranks - 1):
            table.set_available(rank, available[rank])
        view = view_of(table, [])
        view.outstanding[:] = outstanding
        left = [rank for rank in range(ranks) if table.selectable[rank]]
        total = sum(outstanding[rank] for rank in left)
        room = math.ceil(max_load * (total + 1) / len(left))
        have_room = {rank for rank in left if outstanding[rank] < room}
        # the same walk without a bound, over the ranks that have room alone
        for rank in range(ranks):
            table.set_available(rank, rank in have_room)
        expected = ring(ranks, max_load=None).choose(of_session(key), view)
        for rank in range(ranks):
            table.set_available(rank, rank in left)
        assert ring(ranks, max_load=max_load).choose(of_session(key), view) == expected

    def test_one_hot_key_spills_over_in_the_order_of_the_ring(self) -> None:
        view, balancer = view_of(LoadTable(4), []), ring(4)
        chosen = []
        for number in range(20):
            rank = balancer.choose(of_session("hot", number), view)
            view.outstanding[rank] += 1
            chosen.append(rank)
            assert view.outstanding.max() <= math.ceil(1.25 * (number + 1) / 4)
        unbounded = ring(4, max_load=None)
        assert {unbounded.choose(of_session("hot"), view) for _ in range(5)} == {chosen[0]}


class TestSessionAffinity:
    def start(self, ranks: int, **fields: Any) -> SessionAffinity:
        balancer = SessionAffinity(**fields)
        balancer.start(ranks, seed=0)
        return balancer

    def test_a_session_stays_and_begins_at_the_least_load(self) -> None:
        view, balancer = view_of(LoadTable(3), [5.0, 1.0, 3.0]), self.start(3)
        assert balancer.choose(of_session("a"), view) == 1
        busier = view_of(LoadTable(3), [5.0, 9.0, 3.0])
        assert balancer.choose(of_session("a"), busier) == 1
        assert balancer.choose(of_session("b"), busier) == 2
        assert balancer.choose(Request(0, 0.0, 100), busier) == 2

    def test_a_session_that_lost_its_rank_begins_anew_and_stays_there(self) -> None:
        table = LoadTable(3)
        view, balancer = view_of(table, [1.0, 2.0, 3.0]), self.start(3)
        assert balancer.choose(of_session(4), view) == 0
        table.set_available(0, False)
        assert balancer.choose(of_session(4), view) == 1
        table.set_available(0, True)
        assert balancer.choose(of_session(4), view) == 1

    @pytest.mark.parametrize(("after_s", "expected"), [(10.0, 0), (10.5, 1)])
    def test_a_session_is_forgotten_in_time_since_it_was_seen_last(
        self, after_s: float, expected: int
    ) -> None:
        balancer = self.start(2, max_age_s=10.0)
        view = view_of(LoadTable(2), [0.0, 1.0])
        view.now = 100.0
        balancer.choose(of_session("a"), view)
        view.now = 105.0
        balancer.choose(of_session("a"), view)
        later = view_of(LoadTable(2), [1.0, 0.0])
        later.now = 105.0 + after_s
        assert balancer.choose(of_session("a"), later) == expected

    def test_the_session_seen_longest_ago_makes_room(self) -> None:
        balancer = self.start(2, max_sessions=2)
        at_first, later = view_of(LoadTable(2), [0.0, 1.0]), view_of(LoadTable(2), [1.0, 0.0])
        for session in ("a", "b", "a", "c"):  # b was seen longest ago when c came
            balancer.choose(of_session(session), at_first)
        assert balancer.choose(of_session("a"), later) == 0
        assert balancer.choose(of_session("c"), later) == 0
        assert balancer.choose(of_session("b"), later) == 1


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("consistent_hash", {"max_load": 0.9}, "max_load must be finite and at least 1"),
        ("consistent_hash", {"virtual_nodes": 0}, "virtual_nodes must be at least 1"),
        ("consistent_hash", {"prefix_blocks": 0}, "prefix_blocks must be at least 1"),
        ("session_affinity", {"max_sessions": 0}, "max_sessions must be at least 1"),
        ("session_affinity", {"max_age_s": 0.0}, "max_age_s must be finite and above 0"),
    ],
)
def test_impossible_values_are_refused(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BALANCERS.build(name, params)
