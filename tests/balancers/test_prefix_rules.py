"""Rules that weigh prefix hits against load, against hand-worked cases and plain restatements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpbal.balancers import (
    BALANCERS,
    Balancer,
    CacheAware,
    Dynamo,
    LeastLoad,
    LlmD,
    LMetric,
    MarginalPrefill,
    OnMiss,
    TensorrtLlm,
    Ties,
)
from dpbal.core import LoadTable, Request, View
from dpbal.errors import ConfigError
from dpbal.signals import SIGNALS, Unit
from tests.balancers.given import own_prefill_s, report, request, view_of_prefixes

PROMPT = 1000


def chosen(balancer: Balancer, view: View, one: Request, seed: int = 0) -> int:
    balancer.start(view.ranks, seed)
    return balancer.choose(one, view)


@st.composite
def views(draw: st.DrawFn, unit: Unit = Unit.seconds) -> tuple[View, Request]:
    """Ranks in any state, some of which cannot be chosen, and a request."""
    ranks = draw(st.integers(1, 6))
    table = LoadTable(ranks)
    small = st.integers(0, 3)
    for rank in range(ranks):
        report(
            table,
            rank,
            running=draw(small),
            waiting=draw(small),
            prefill_tokens=draw(st.sampled_from([0, 500, 1000, 40_000])),
            kv_used_tokens=draw(st.sampled_from([0, 500, 5000])),
        )
    for rank in range(ranks - 1):
        table.set_available(rank, draw(st.booleans()))
    one = request(0, draw(st.sampled_from([100, 1000, 7000])), 0)
    cached = [
        min(
            int(draw(st.sampled_from([0, 0.05, 0.5, 0.8, 1.0])) * one.prompt_tokens),
            one.prompt_tokens - 1,
        )
        for _ in range(ranks)
    ]
    choices = [0.0, 0.05, 0.5, 2.0] if unit is Unit.seconds else [0.0, 500.0, 9000.0]
    loads = [draw(st.sampled_from(choices)) for _ in range(ranks)]
    view = view_of_prefixes(table, one, cached, loads, unit)
    for rank in range(ranks):
        view.in_flight.requests[rank] = draw(small)
        view.in_flight.tokens[rank] = draw(st.sampled_from([0, 800]))
        view.in_flight.prefill_tokens[rank] = draw(st.sampled_from([0, 300]))
        view.outstanding[rank] = draw(st.sampled_from([0, 1, 40, 70, 200]))
        view.cached_blocks[rank] = draw(small)
    return view, one


def selectable(view: View) -> list[int]:
    return [rank for rank in range(view.ranks) if view.selectable[rank]]


def prefill_tokens(view: View, rank: int) -> int:
    return int(view.reports[rank]["prefill_tokens"] + view.in_flight.prefill_tokens[rank])


def requests_of(view: View, rank: int) -> int:
    row = view.reports[rank]
    return int(row["running"] + row["waiting"] + view.in_flight.requests[rank])


class TestMarginalPrefill:
    def score(self, rule: MarginalPrefill, view: View, rank: int) -> float:
        loads, own = view.loads, view.own_prefill_s
        longest = max(loads[r] for r in selectable(view))
        above = max(0.0, loads[rank] + own[rank] - longest)
        return float(above + rule.miss_share * own[rank] + rule.queue_share * loads[rank])

    def waits(self, view: View, rank: int) -> tuple[float, float]:
        """How much later than anywhere it is done on a rank, and what it saves there."""
        own = view.own_prefill_s
        done = view.loads + own
        soonest = min(selectable(view), key=lambda r: (done[r], own[r]))
        return float(done[rank] - done[soonest]), float(own[soonest] - own[rank])

    @given(
        seen=views(),
        miss_share=st.sampled_from([0.0, 0.25, 1.0]),
        queue_share=st.sampled_from([0.0, 0.01, 1.0]),
        patience=st.sampled_from([None, 0.0, 0.5, 2.0]),
    )
    def test_takes_the_least_score_unless_the_wait_is_too_long(
        self,
        seen: tuple[View, Request],
        miss_share: float,
        queue_share: float,
        patience: float | None,
    ) -> None:
        view, one = seen
        rule = MarginalPrefill(miss_share=miss_share, queue_share=queue_share, patience=patience)
        rank = chosen(rule, view, one)
        assert rank in selectable(view)
        scores = {r: self.score(rule, view, r) for r in selectable(view)}
        best = [r for r, score in scores.items() if score == min(scores.values())]
        if patience is None:
            assert rank in best
            return
        allowed = set()
        for r in best:
            later_s, saved_s = self.waits(view, r)
            is_out = later_s > 0 and later_s > patience * max(0.0, saved_s)
            allowed |= {k for k in scores if self.waits(view, k)[0] <= 0} if is_out else {r}
        assert rank in allowed

    def test_a_hit_is_followed_below_the_longest_queue(self) -> None:
        one = request(0, PROMPT, 0)
        # a miss takes 0.105 s, a hit of 900 tokens 0.011 s: rank 1 stays below rank 2 either way
        view = view_of_prefixes(LoadTable(3), one, [0, 900, 0], [0.0, 0.1, 0.5])
        assert own_prefill_s(one, 0) == pytest.approx(0.105)
        assert own_prefill_s(one, 900) == pytest.approx(0.01095)
        assert chosen(MarginalPrefill(), view, one) == 1

    def test_a_hit_is_not_followed_where_it_makes_the_longest_queue_longer_by_much(self) -> None:
        one = request(0, PROMPT, 0)
        # rank 1 would become 0.401 long; rank 0 stays below 0.39, for 0.25 * 0.094 s more
        held = view_of_prefixes(LoadTable(3), one, [0, 900, 0], [0.0, 0.39, 0.35])
        assert chosen(MarginalPrefill(patience=None), held, one) == 1
        slow = view_of_prefixes(LoadTable(3), one, [0, 500, 0], [0.0, 0.39, 0.35])
        assert chosen(MarginalPrefill(patience=None), slow, one) == 0

    @pytest.mark.parametrize(("patience", "expected"), [(None, 1), (3.0, 1), (2.0, 0), (0.0, 0)])
    def test_it_waits_for_a_hit_as_long_as_patience_says(
        self, patience: float | None, expected: int
    ) -> None:
        one = request(0, PROMPT, 0)
        # on rank 1 it is done after 0.311 s, on rank 0 after 0.105 s: 0.206 s later for 0.094 saved
        view = view_of_prefixes(LoadTable(3), one, [0, 900, 0], [0.0, 0.3, 0.5])
        assert chosen(MarginalPrefill(patience=patience), view, one) == expected

    @pytest.mark.parametrize(("patience", "holders"), [(None, 1), (1.0, 4), (0.0, 4)])
    def test_a_hot_prefix_is_copied_once_waiting_costs_as_much(
        self, patience: float | None, holders: int
    ) -> None:
        """Alike requests at once, each on the queues of those before it."""
        rule = MarginalPrefill(patience=patience)
        rule.start(4, seed=0)
        one, cached, loads = request(0, PROMPT, 0), [0] * 4, [0.0] * 4
        for _ in range(40):
            # one long queue elsewhere hides whatever these ranks do
            view = view_of_prefixes(LoadTable(5), one, [*cached, 0], [*loads, 100.0])
            rank = rule.choose(one, view)
            loads[rank] += own_prefill_s(one, cached[rank])
            cached[rank] = 900
        assert sum(held > 0 for held in cached) == holders

    def test_requests_wait_for_a_prefix_together(self) -> None:
        one = request(0, PROMPT, 0)
        # 0.026 s later for 0.094 s saved, each time: the eighth goes over 2 * 0.094
        view = view_of_prefixes(LoadTable(3), one, [0, 900, 0], [0.0, 0.12, 0.5])
        rule = MarginalPrefill(patience=2.0)
        rule.start(3, seed=0)
        assert [rule.choose(one, view) for _ in range(17)] == [*[1] * 7, 0] * 2 + [1]

    def test_others_do_not_wait_for_it(self) -> None:
        view_of = {
            first: view_of_prefixes(
                LoadTable(3), request(0, PROMPT, first), [0, 900, 0], [0.0, 0.12, 0.5]
            )
            for first in (0, 1000)
        }
        rule = MarginalPrefill(patience=2.0)
        rule.start(3, seed=0)
        ranks = [rule.choose(request(0, PROMPT, first), view_of[first]) for first in (0, 1000) * 7]
        assert ranks == [1] * 14

    def test_a_rank_that_is_done_as_soon_as_any_is_never_out(self) -> None:
        one = request(0, PROMPT, 0)
        view = view_of_prefixes(LoadTable(2), one, [0, 500], [0.0, 0.5])
        view.own_prefill_s = np.array([1.0, 0.5])
        rule = MarginalPrefill(miss_share=0.0, queue_share=1.0)  # its own wait alone decides
        assert chosen(rule, view, one) == 0

    def test_without_hits_it_is_the_least_load(self) -> None:
        one = request(0, PROMPT, 0)
        view = view_of_prefixes(LoadTable(4), one, [0] * 4, [0.3, 0.2, 0.9, 0.4])
        assert chosen(MarginalPrefill(), view, one) == 1

    def test_ties_rotate(self) -> None:
        one = request(0, PROMPT, 0)
        view = view_of_prefixes(LoadTable(3), one, [0, 900, 900], [0.0, 0.0, 0.0])
        rule = MarginalPrefill()
        rule.start(3, seed=0)
        assert [rule.choose(one, view) for _ in range(4)] == [1, 2, 1, 2]

    @pytest.mark.parametrize("signal", ["requests", "holding_tokens"])
    def test_a_signal_without_seconds_is_refused(self, signal: str) -> None:
        with pytest.raises(ConfigError, match="type signal=work_in_flight") as refused:
            MarginalPrefill().check(SIGNALS[signal]())
        assert "\n" not in str(refused.value)
        MarginalPrefill().check(SIGNALS["prefill_work"]())


class TestLeastLoad:
    @given(seen=views(), miss_weight=st.sampled_from([0.5, 1.0, 8.0]))
    def test_in_seconds_misses_count_what_they_take(
        self, seen: tuple[View, Request], miss_weight: float
    ) -> None:
        view, one = seen
        loads = view.loads + miss_weight * view.own_prefill_s
        rank = chosen(LeastLoad(miss_weight=miss_weight), view, one)
        assert loads[rank] == min(loads[r] for r in selectable(view))

    @given(seen=views(Unit.tokens), miss_weight=st.sampled_from([0.5, 1.0, 8.0]))
    def test_in_tokens_misses_count_their_tokens(
        self, seen: tuple[View, Request], miss_weight: float
    ) -> None:
        view, one = seen
        loads = view.loads + miss_weight * (one.prompt_tokens - view.cached_tokens)
        rank = chosen(LeastLoad(miss_weight=miss_weight), view, one)
        assert loads[rank] == min(loads[r] for r in selectable(view))

    def test_a_signal_in_requests_is_refused_where_misses_are_weighed(self) -> None:
        LeastLoad().check(SIGNALS["requests"]())
        with pytest.raises(ConfigError, match=r"type balancer\.miss_weight=0") as refused:
            LeastLoad(miss_weight=1.0).check(SIGNALS["requests"]())
        assert "\n" not in str(refused.value)
        LeastLoad(miss_weight=1.0).check(SIGNALS["holding_tokens"]())


class TestCacheAware:
    def best(self, rule: CacheAware, view: View, one: Request) -> list[int]:
        ranks = selectable(view)
        sent = {rank: int(view.outstanding[rank]) for rank in ranks}
        cached = {rank: int(view.cached_tokens[rank]) for rank in ranks}
        blocks = {rank: int(view.cached_blocks[rank]) for rank in ranks}
        most, fewest = max(sent.values()), min(sent.values())
        if most - fewest > rule.balance_abs and most > rule.balance_rel * fewest:
            return [rank for rank in ranks if sent[rank] == fewest]
        if max(cached.values()) > rule.cache_threshold * one.prompt_tokens:
            return [rank for rank in ranks if cached[rank] == max(cached.values())]
        if rule.on_miss is OnMiss.fewest_requests:
            return [rank for rank in ranks if sent[rank] == fewest]
        smallest = min((blocks[rank], sent[rank]) for rank in ranks)
        return [rank for rank in ranks if (blocks[rank], sent[rank]) == smallest]

    @given(
        seen=views(),
        on_miss=st.sampled_from(OnMiss),
        balance_abs=st.sampled_from([0, 32, 64]),
        balance_rel=st.sampled_from([1.0, 1.5, 4.0]),
    )
    def test_follows_its_three_cases(
        self, seen: tuple[View, Request], on_miss: OnMiss, balance_abs: int, balance_rel: float
    ) -> None:
        view, one = seen
        rule = CacheAware(balance_abs=balance_abs, balance_rel=balance_rel, on_miss=on_miss)
        assert chosen(rule, view, one) == self.best(rule, view, one)[0]
        rule.ties = Ties.rotate
        assert chosen(rule, view, one, seed=1) in self.best(rule, view, one)

    @pytest.mark.parametrize(
        ("outstanding", "expected"),
        [
            ([65, 0, 1], 1),  # 65 more than the fewest, and more than 1.5 times
            ([64, 0, 1], 0),  # not more than 64 above
            ([200, 134, 140], 0),  # 66 above, but under 1.5 times: the hit is followed
        ],
    )
    def test_load_wins_over_a_hit_only_where_it_is_far_apart(
        self, outstanding: list[int], expected: int
    ) -> None:
        one = request(0, PROMPT)
        view = view_of_prefixes(LoadTable(3), one, [900, 0, 0])
        view.outstanding[:] = outstanding
        assert chosen(CacheAware(), view, one) == expected

    @pytest.mark.parametrize(("cached", "expected"), [(300, 1), (301, 0)])
    def test_a_hit_must_be_above_its_share(self, cached: int, expected: int) -> None:
        one = request(0, PROMPT)
        view = view_of_prefixes(LoadTable(2), one, [cached, 0])
        view.outstanding[0] = 1
        assert chosen(CacheAware(), view, one) == expected

    def test_a_miss_may_go_to_the_smallest_index(self) -> None:
        one = request(0, PROMPT)
        view = view_of_prefixes(LoadTable(3), one, [0, 0, 0])
        view.outstanding[:], view.cached_blocks[:] = [0, 1, 2], [9, 9, 3]
        assert chosen(CacheAware(), view, one) == 0
        assert chosen(CacheAware(on_miss=OnMiss.smallest_index), view, one) == 2


class TestLMetric:
    @given(seen=views())
    def test_takes_the_least_product(self, seen: tuple[View, Request]) -> None:
        view, one = seen

        def score(rank: int) -> int:
            missed = one.prompt_tokens - int(view.cached_tokens[rank])
            return (prefill_tokens(view, rank) + missed) * (requests_of(view, rank) + 1)

        assert score(chosen(LMetric(), view, one)) == min(map(score, selectable(view)))

    def test_a_hit_is_worth_as_many_requests_as_it_saves_times(self) -> None:
        one = request(0, PROMPT)
        table = LoadTable(2)
        report(table, 0, running=4)  # 200 * 5 against 1000 * 1
        report(table, 1)
        assert chosen(LMetric(), view_of_prefixes(table, one, [801, 0]), one) == 0
        assert chosen(LMetric(), view_of_prefixes(table, one, [799, 0]), one) == 1


class TestDynamo:
    def costs(self, rule: Dynamo, view: View, one: Request) -> dict[int, float]:
        block = one.block_tokens
        costs = {}
        for rank in selectable(view):
            queued = prefill_tokens(view, rank) + one.prompt_tokens
            left = max(0.0, queued - rule.overlap_credit * int(view.cached_tokens[rank]))
            resident = int(view.reports[rank]["kv_used_tokens"] + view.in_flight.tokens[rank])
            blocks = rule.prefill_load_scale * left / block + resident / block
            costs[rank] = blocks + rule.request_weight * requests_of(view, rank)
        return costs

    @given(
        seen=views(),
        credit=st.sampled_from([0.0, 1.0, 2.0]),
        scale=st.sampled_from([0.0, 1.0, 4.0]),
        weight=st.sampled_from([0.0, 1.0, 64.0]),
        seed=st.integers(0, 99),
    )
    def test_takes_the_least_cost(
        self, seen: tuple[View, Request], credit: float, scale: float, weight: float, seed: int
    ) -> None:
        view, one = seen
        rule = Dynamo(overlap_credit=credit, prefill_load_scale=scale, request_weight=weight)
        costs = self.costs(rule, view, one)
        assert costs[chosen(rule, view, one, seed)] == pytest.approx(min(costs.values()))

    def test_ties_are_equally_likely(self) -> None:
        one = request(0, PROMPT)
        table = LoadTable(6)
        report(table, 0, kv_used_tokens=9)
        for rank in range(1, 6):
            report(table, rank, kv_used_tokens=9 * (rank in (2, 3)))
        view = view_of_prefixes(table, one, [0] * 6)
        rule = Dynamo()
        rule.start(6, seed=0)
        counts = np.bincount([rule.choose(one, view) for _ in range(6000)], minlength=6)
        assert counts == pytest.approx([0, 2000, 0, 0, 2000, 2000], abs=200)

    def test_a_temperature_draws_by_normalised_cost(self) -> None:
        one = Request(0, 0.0, PROMPT, block_tokens=100)
        table = LoadTable(4)
        for rank, resident in enumerate((0, 1000, 2000, 0)):
            report(table, rank, kv_used_tokens=resident)
        table.set_available(3, False)
        view = view_of_prefixes(table, one, [0] * 4)
        rule = Dynamo(temperature=0.5)
        rule.start(4, seed=0)
        counts = np.bincount([rule.choose(one, view) for _ in range(10_000)], minlength=4)
        weights = np.array([1.0, math.exp(-1.0), math.exp(-2.0), 0.0])
        assert counts / 10_000 == pytest.approx(weights / weights.sum(), abs=0.02)

    def test_equal_costs_are_equally_likely_at_any_temperature(self) -> None:
        one = request(0, PROMPT)
        view = view_of_prefixes(LoadTable(2), one, [0, 0])
        rule = Dynamo(temperature=0.01)
        rule.start(2, seed=0)
        counts = np.bincount([rule.choose(one, view) for _ in range(4000)], minlength=2)
        assert counts == pytest.approx([2000, 2000], abs=200)


class TestLlmD:
    def best(self, rule: LlmD, view: View, one: Request) -> list[int]:
        ranks = selectable(view)
        limit = rule.affinity_threshold * one.prompt_tokens
        sticky = [rank for rank in ranks if view.cached_tokens[rank] >= limit]
        others = [rank for rank in ranks if rank not in sticky]
        tokens = {rank: prefill_tokens(view, rank) for rank in ranks}
        if sticky and others:
            behind = min(tokens[r] for r in sticky) - min(tokens[r] for r in others)
            penalty_s = rule.max_penalty_s
            if penalty_s is not None and behind / rule.prefill_tokens_per_s > penalty_s:
                sticky = []
        loads = {
            rank: min(
                tokens[rank] + one.prompt_tokens - int(view.cached_tokens[rank]), rule.full_tokens
            )
            for rank in sticky or ranks
        }
        return [rank for rank in loads if loads[rank] == min(loads.values())]

    @given(
        seen=views(),
        threshold=st.sampled_from([0.0, 0.5, 0.8]),
        penalty_s=st.sampled_from([0.0, 1.0, 18.0]),
        speed=st.sampled_from([500.0, 15_928.0]),
        full=st.sampled_from([600, 4_194_304]),
        seed=st.integers(0, 99),
    )
    def test_takes_the_least_loaded_of_the_sticky_ranks(
        self,
        seen: tuple[View, Request],
        threshold: float,
        penalty_s: float,
        speed: float,
        full: int,
        seed: int,
    ) -> None:
        view, one = seen
        rule = LlmD(threshold, penalty_s, speed, full)
        assert chosen(rule, view, one, seed) in self.best(rule, view, one)

    @pytest.mark.parametrize(
        ("queued", "cached", "expected"),
        [
            (286_704, 800, 0),  # 18 s of prefill behind, not more
            (286_705, 800, 1),
            (1, 799, 1),  # under 80 % of the prompt it is load that counts
        ],
    )
    def test_stays_with_its_prefix_for_up_to_18_seconds(
        self, queued: int, cached: int, expected: int
    ) -> None:
        one = request(0, PROMPT)
        table = LoadTable(2)
        report(table, 0, prefill_tokens=queued + 1000 * (cached < 800))
        report(table, 1)
        assert chosen(LlmD(), view_of_prefixes(table, one, [cached, 0]), one) == expected

    def test_beyond_full_tokens_ranks_are_equal(self) -> None:
        one = request(0, PROMPT)
        table = LoadTable(3)
        for rank, queued in enumerate((5000, 7000, 9000)):
            report(table, rank, prefill_tokens=queued)
        view = view_of_prefixes(table, one, [0, 0, 0])
        for full, ranks in ((20_000, {0}), (7000, {0}), (6000, {0, 1, 2})):
            rule = LlmD(full_tokens=full)
            rule.start(3, seed=0)
            assert {rule.choose(one, view) for _ in range(60)} == ranks

    def test_a_threshold_of_1_asks_for_all_that_can_be_held(self) -> None:
        one = request(0, PROMPT)
        table = LoadTable(2)
        report(table, 0, prefill_tokens=5000)
        report(table, 1)
        for cached, expected in ((PROMPT - 1, 0), (PROMPT - 2, 1)):
            view = view_of_prefixes(table, one, [cached, 0])
            assert chosen(LlmD(affinity_threshold=1.0), view, one) == expected


class TestTensorrtLlm:
    def best(self, rule: TensorrtLlm, view: View, one: Request) -> list[int]:
        ranks, prompt = selectable(view), one.prompt_tokens
        counts = {rank: requests_of(view, rank) for rank in ranks}
        fair = -(-(sum(counts.values()) + 1) // len(ranks))
        cap = max(math.ceil(rule.fair_share * fair), max(counts.values()))
        ranks = [rank for rank in ranks if counts[rank] < cap]
        longest = max(int(view.cached_tokens[rank]) for rank in ranks)
        follows = longest / prompt > rule.match_threshold
        load = max(sum(view.loads[rank] for rank in ranks), prompt)
        scores = {
            rank: (
                prompt
                - follows * int(view.cached_tokens[rank])
                + rule.load_weight * prompt / load * view.loads[rank],
                view.loads[rank],
            )
            for rank in ranks
        }
        return [rank for rank in ranks if scores[rank] == min(scores.values())]

    @given(
        seen=views(Unit.tokens),
        weight=st.sampled_from([0.0, 1.0, 3.0]),
        threshold=st.sampled_from([0.0, 0.1, 0.9]),
        share=st.sampled_from([1.0, 2.0]),
        seed=st.integers(0, 99),
    )
    def test_takes_the_least_score_below_the_cap(
        self,
        seen: tuple[View, Request],
        weight: float,
        threshold: float,
        share: float,
        seed: int,
    ) -> None:
        view, one = seen
        rule = TensorrtLlm(weight, threshold, share)
        assert chosen(rule, view, one, seed) in self.best(rule, view, one)

    def test_load_weighs_at_most_as_much_as_the_prompt(self) -> None:
        one = request(0, PROMPT)
        # 200 + 1000 * 90 / 100 against 1000 + 1000 * 10 / 100; at 190 to 10, 950 and 50
        for loads, expected in (([9_000.0, 1_000.0], 0), ([95_000.0, 5_000.0], 0)):
            view = view_of_prefixes(LoadTable(2), one, [901, 0], loads, Unit.tokens)
            assert chosen(TensorrtLlm(), view, one) == expected
        view = view_of_prefixes(LoadTable(2), one, [799, 0], [9_000.0, 1_000.0], Unit.tokens)
        assert chosen(TensorrtLlm(), view, one) == 1

    def test_small_hits_do_not_count(self) -> None:
        one = request(0, PROMPT)
        for cached, expected in ((100, 1), (101, 0)):
            view = view_of_prefixes(LoadTable(2), one, [cached, 0], [50.0, 1.0], Unit.tokens)
            assert chosen(TensorrtLlm(), view, one) == expected

    def test_a_rank_with_twice_its_share_is_out(self) -> None:
        one = request(0, PROMPT)
        for running, expected in ((7, 0), (8, 1)):  # the share of 9 or 10 requests on 3 is 3 or 4
            table = LoadTable(3)
            for rank, count in enumerate((running, 3, 3)):
                report(table, rank, running=count)
            view = view_of_prefixes(table, one, [900, 400, 0], [0.0] * 3, Unit.tokens)
            rule = TensorrtLlm(fair_share=1.5)
            assert chosen(rule, view, one) == expected

    @pytest.mark.parametrize("signal", ["requests", "prefill_work"])
    def test_a_signal_without_tokens_is_refused(self, signal: str) -> None:
        with pytest.raises(ConfigError, match="type signal=holding_in_flight") as refused:
            TensorrtLlm().check(SIGNALS[signal]())
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("least_prefill", {"miss_weight": -1.0}, "miss_weight must be finite and not negative"),
        ("marginal_prefill", {"miss_share": -1.0}, "miss_share must be finite and not negative"),
        ("marginal_prefill", {"queue_share": -1.0}, "queue_share must be finite"),
        ("marginal_prefill", {"patience": -1.0}, "patience must be finite and not negative"),
        ("cache_aware", {"cache_threshold": 1.5}, "cache_threshold must be from 0 to 1"),
        ("cache_aware", {"balance_abs": -1}, "balance_abs must be finite and not negative"),
        ("cache_aware", {"balance_rel": -1.0}, "balance_rel must be finite and not negative"),
        ("dynamo", {"temperature": -0.1}, "temperature must be finite and not negative"),
        ("llm_d", {"affinity_threshold": 1.1}, "affinity_threshold must be from 0 to 1"),
        ("llm_d", {"max_penalty_s": -1.0}, "max_penalty_s must be finite and not negative"),
        ("llm_d", {"prefill_tokens_per_s": 0.0}, "prefill_tokens_per_s must be finite and above"),
        ("tensorrt_llm", {"load_weight": -1.0}, "load_weight must be finite and not negative"),
        ("tensorrt_llm", {"match_threshold": 2.0}, "match_threshold must be from 0 to 1"),
        ("tensorrt_llm", {"fair_share": 0.5}, "fair_share must be finite and at least 1"),
    ],
)
def test_impossible_values_are_refused(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BALANCERS.build(name, params)
