from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dpbal.indexers import CACHE_EVENT, KvEvents, OwnRecord
from dpbal.indexers.outstanding import Outstanding
from tests.indexers.naive import BLOCK_TOKENS, NaiveEvents, NaiveRecord, prompt

RANKS = 3
LIMIT = 1800

SPECIAL = [0, -1, 1, -(2**63), 2**63 - 1, -2, 2**32, 2**32 - 1]

# what a prompt shares with others is its beginning, and the longest are more than tables begin with
FEW = st.lists(st.sampled_from(SPECIAL), max_size=8, unique=True)
MANY = st.builds(
    lambda family, length: list(range(family * 10**6, family * 10**6 + length)),
    st.integers(-3, 3),
    st.sampled_from([1, 7, 300, 900, 2500]),
)
HASHES = st.one_of(FEW, MANY)
RANK = st.integers(0, RANKS - 1)

RECORD_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), HASHES, RANK, st.sampled_from([0.0, 0.5, 4.0])),
        st.tuples(st.just("forget"), RANK),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(RECORD_STEPS, st.lists(HASHES, min_size=1, max_size=4))
def test_a_record_is_a_list_by_last_use(
    steps: list[tuple[Any, ...]], asked: list[list[int]]
) -> None:
    record = OwnRecord(size=1.0, max_age_s=5.0)
    record.start(RANKS, LIMIT * BLOCK_TOKENS)
    naive = NaiveRecord(RANKS, LIMIT, 5.0)
    now_s = 0.0
    for number, (what, *given_) in enumerate(steps):
        if what == "send":
            hashes, rank, later_s = given_
            now_s += later_s
            record.dispatched(prompt(number, hashes), rank, now_s)
            naive.dispatched(hashes, rank, now_s)
            asked = [hashes, *asked[:3]]
        else:
            record.forget(given_[0])
            naive.forget(given_[0])
        assert record.sizes.tolist() == naive.sizes
        for hashes in asked:
            assert record.match(prompt(-1, hashes)).tolist() == naive.match(hashes)


EVENT_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("events"), HASHES, RANK, st.booleans()),
        st.tuples(st.just("send"), HASHES, RANK),
        st.tuples(st.just("end"), st.integers(0, 24)),
        st.tuples(st.just("clear"), RANK),
        st.tuples(st.just("forget"), RANK),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(EVENT_STEPS, st.lists(HASHES, min_size=1, max_size=4))
def test_events_are_counts_beside_what_is_on_its_way(
    steps: list[tuple[Any, ...]], asked: list[list[int]]
) -> None:
    index = KvEvents()
    index.start(RANKS, 10**9)
    naive = NaiveEvents(RANKS)
    for number, (what, *given_) in enumerate(steps):
        if what == "events":
            hashes, rank, stored = given_
            events = np.zeros(len(hashes), CACHE_EVENT)
            events["hash"], events["rank"], events["stored"] = hashes, rank, stored
            index.apply(events)
            for key in hashes:
                naive.apply(rank, key, stored)
        elif what == "send":
            hashes, rank = given_
            index.dispatched(prompt(number, hashes), rank, 0.0)
            naive.requests[number] = (rank, hashes)
        elif what == "end":
            index.finished(given_[0])
            naive.requests.pop(given_[0], None)
        elif what == "clear":
            index.clear(given_[0])
            naive.clear(given_[0])
        else:
            index.forget(given_[0])
            naive.forget(given_[0])
        assert index.sizes.tolist() == naive.sizes
        assert index.unknown_removals == naive.unknown_removals
        for hashes in asked:
            assert index.match(prompt(-1, hashes)).tolist() == naive.match(hashes)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(HASHES, RANK), max_size=20), st.randoms(use_true_random=False))
def test_what_has_ended_is_not_on_its_way(sent: list[tuple[list[int], int]], random: Any) -> None:
    outstanding = Outstanding(RANKS)
    for number, (hashes, rank) in enumerate(sent):
        outstanding.add(prompt(number, hashes), rank)
    numbers = list(range(len(sent)))
    random.shuffle(numbers)
    for number in numbers:
        outstanding.remove(number)
        outstanding.remove(number)  # unknown by now
    assert len(outstanding) == 0
    for hashes, _ in sent:
        matched = np.zeros(RANKS, np.int64)
        assert not outstanding.extend(np.array(hashes, np.int64), matched)
        assert not matched.any()


def test_a_look_up_goes_on_from_where_each_rank_is() -> None:
    outstanding = Outstanding(RANKS)
    outstanding.add(prompt(0, [9, 9, 3, 4]), 1)  # not the first two of the prompt below
    matched = np.array([0, 2, 4])
    assert outstanding.extend(np.array([1, 2, 3, 4, 5]), matched)
    assert matched.tolist() == [0, 4, 4]
    assert not outstanding.extend(np.array([1, 2, 3, 4, 5]), matched)
