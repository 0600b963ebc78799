from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpbal.core import Request
from dpbal.errors import ConfigError
from dpbal.indexers import CACHE_EVENT, INDEXERS, Indexer, KvEvents, Nothing, OwnRecord
from tests.docs.pages import PAGES, blocks
from tests.indexers.naive import BLOCK_TOKENS, prompt

RANKS = 4
CAPACITY_BLOCKS = 500

NAMES = [name for name, cls in INDEXERS.items() if not cls.in_simulator_only and cls is not Nothing]
"""Indexers that know something without a simulator."""


@pytest.fixture(params=NAMES)
def indexer(request: pytest.FixtureRequest) -> Indexer:
    return started(request.param)


def started(name: str, **fields: Any) -> Indexer:
    indexer = INDEXERS.build(name, fields)
    indexer.start(RANKS, CAPACITY_BLOCKS * BLOCK_TOKENS)
    return indexer


def test_nothing_is_known_at_the_start(indexer: Indexer) -> None:
    assert indexer.match(prompt(0, range(50))).tolist() == [0] * RANKS
    assert indexer.sizes.tolist() == [0] * RANKS


def test_a_prompt_is_where_it_was_sent_and_nowhere_else(indexer: Indexer) -> None:
    indexer.dispatched(prompt(0, range(50)), 2, 1.0)
    assert indexer.match(prompt(1, range(50))).tolist() == [0, 0, 50, 0]
    assert indexer.match(prompt(1, range(80))).tolist() == [0, 0, 50, 0]
    assert indexer.match(prompt(1, [*range(20), -7, *range(21, 50)])).tolist() == [0, 0, 20, 0]
    assert indexer.match(prompt(1, range(1, 50))).tolist() == [0, 0, 49, 0]
    assert indexer.match(prompt(1, [-7, *range(50)])).tolist() == [0] * RANKS


def test_ranks_hold_parts_of_different_length(indexer: Indexer) -> None:
    for rank, length in enumerate((10, 0, 30, 20)):
        indexer.dispatched(prompt(rank, range(length)), rank, 1.0)
    assert indexer.match(prompt(9, range(25))).tolist() == [10, 0, 25, 20]


def test_a_rank_is_forgotten_and_the_others_are_not(indexer: Indexer) -> None:
    for rank in range(RANKS):
        indexer.dispatched(prompt(rank, range(50)), rank, 1.0)
    indexer.forget(1)
    assert indexer.match(prompt(9, range(50))).tolist() == [50, 0, 50, 50]
    assert indexer.sizes[1] == 0
    indexer.finished(1)  # it went with its rank
    indexer.dispatched(prompt(10, range(5)), 1, 2.0)
    assert indexer.match(prompt(11, range(50))).tolist() == [50, 5, 50, 50]


@pytest.mark.parametrize("hashes", [None, []])
def test_a_prompt_without_hashes_is_nowhere(indexer: Indexer, hashes: list[int] | None) -> None:
    indexer.dispatched(prompt(0, range(50)), 0, 1.0)
    indexer.dispatched(prompt(1, hashes), 0, 1.0)
    assert indexer.match(prompt(2, hashes)).tolist() == [0] * RANKS
    indexer.finished(1)
    indexer.finished("never seen")
    assert indexer.match(prompt(2, range(50))).tolist() == [50, 0, 0, 0]


def test_the_indexer_none_never_knows_anything() -> None:
    indexer = started("none")
    indexer.dispatched(prompt(0, range(50)), 0, 1.0)
    assert indexer.match(prompt(1, range(50))).tolist() == [0] * RANKS
    indexer.forget(0)
    indexer.finished(0)
    assert indexer.sizes.tolist() == [0] * RANKS


def test_hashes_may_be_read_only(indexer: Indexer) -> None:
    request = prompt(0, range(50))
    assert request.block_hashes is not None
    request.block_hashes.flags.writeable = False
    indexer.dispatched(request, 3, 1.0)
    assert indexer.match(request).tolist() == [0, 0, 0, 50]


def test_the_same_history_gives_the_same_answers(indexer: Indexer) -> None:
    again = type(indexer)()
    again.start(RANKS, CAPACITY_BLOCKS * BLOCK_TOKENS)
    random = np.random.default_rng(0)
    for number in range(300):
        request = prompt(number, random.integers(0, 9) * 1000 + np.arange(random.integers(90)))
        assert indexer.match(request).tolist() == again.match(request).tolist()
        for one in (indexer, again):
            one.dispatched(request, number % RANKS, number * 0.1)
            one.finished(number - 20)


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_bounded(name: str) -> None:
    indexer: Any = started(name)
    most, sizes_bytes = 2 * CAPACITY_BLOCKS, []
    for number in range(4000):
        request = prompt(number, number * 1000 + np.arange(number % 97))
        indexer.dispatched(request, number % RANKS, float(number))
        indexer.finished(number - 50)
        if isinstance(indexer, KvEvents):  # and no removal ever comes
            indexer.match(request)
            assert request.block_hashes is not None
            indexer.apply(stored(number % RANKS, request.block_hashes))
        assert max(indexer.sizes) <= most
        sizes_bytes.append(indexer.size_bytes)
    assert sizes_bytes[-1] == sizes_bytes[1500]
    assert sizes_bytes[-1] < 200 * RANKS * most


@pytest.mark.parametrize("name", ["own_record", "shared_record"])
def test_a_prompt_outlives_those_sent_before_it_and_its_beginning_its_end(name: str) -> None:
    record = started(name, size=1.0)
    record.dispatched(prompt(0, range(400)), 0, 1.0)
    record.dispatched(prompt(1, range(1000, 1300)), 0, 2.0)  # 200 too many
    assert record.match(prompt(2, range(400)))[0] == 200
    assert record.match(prompt(2, range(1000, 1300)))[0] == 300
    record.dispatched(prompt(3, range(5000, 6000)), 0, 3.0)  # longer than the record
    assert record.match(prompt(4, range(5000, 6000)))[0] == CAPACITY_BLOCKS
    assert record.sizes[0] == CAPACITY_BLOCKS


def test_what_is_unused_for_too_long_is_forgotten_at_the_next_dispatch() -> None:
    record = started("own_record", max_age_s=10.0)
    record.dispatched(prompt(0, range(50)), 0, 0.0)
    record.dispatched(prompt(1, range(20)), 0, 8.0)
    record.dispatched(prompt(2, [7000]), 1, 10.0)
    assert record.match(prompt(3, range(50)))[0] == 50
    record.dispatched(prompt(4, [8000]), 1, 10.5)
    assert record.match(prompt(5, range(50)))[0] == 20
    ageless = started("own_record", max_age_s=None)
    ageless.dispatched(prompt(0, range(50)), 0, 0.0)
    ageless.dispatched(prompt(1, [7000]), 1, 1e9)
    assert ageless.match(prompt(2, range(50)))[0] == 50


def stored(rank: int, hashes: Any, is_stored: int = 1) -> np.ndarray:
    events = np.zeros(len(hashes), CACHE_EVENT)
    events["rank"], events["hash"], events["stored"] = rank, hashes, is_stored
    return events


def test_a_block_with_copies_is_there_until_all_are_removed() -> None:
    index = KvEvents()
    index.start(RANKS, CAPACITY_BLOCKS * BLOCK_TOKENS)
    index.apply(stored(1, [5, 6, 5]))
    assert index.sizes.tolist() == [0, 2, 0, 0]
    index.apply(stored(1, [5], 0))
    assert index.match(prompt(0, [5, 6])).tolist() == [0, 2, 0, 0]
    index.apply(stored(1, [5, 5, 77], 0))
    assert index.match(prompt(0, [5, 6])).tolist() == [0] * RANKS
    assert index.unknown_removals == 2
    index.apply(stored(1, [5]))
    assert index.match(prompt(0, [5, 6])).tolist() == [0, 2, 0, 0]


def test_what_is_on_its_way_joins_what_is_stored_until_it_ends() -> None:
    index = KvEvents()
    index.start(RANKS, CAPACITY_BLOCKS * BLOCK_TOKENS)
    index.apply(stored(2, [1, 2, 5, 6]))
    index.dispatched(prompt("a", [1, 2, 3, 4]), 2, 0.0)
    assert index.match(prompt(0, [1, 2, 3, 4, 5, 6, 7]))[2] == 6
    index.clear(2)  # its cache was reset: it will have to compute all of the request
    assert index.match(prompt(0, [1, 2, 3, 4, 5, 6, 7]))[2] == 4
    index.finished("a")
    assert index.match(prompt(0, [1, 2, 3, 4, 5, 6, 7]))[2] == 0


def test_a_rank_whose_removals_were_lost_is_forgotten() -> None:
    index = KvEvents()
    index.start(RANKS, CAPACITY_BLOCKS * BLOCK_TOKENS)
    index.match(prompt(0, [1]))  # which says how large blocks are
    index.match(Request("no hashes", 0.0, 100, block_tokens=100 * BLOCK_TOKENS))  # and not this
    index.apply(stored(0, range(400)))
    index.apply(stored(3, range(2 * CAPACITY_BLOCKS)))
    assert (index.sizes[3], index.overflows) == (2 * CAPACITY_BLOCKS, 0)
    index.apply(stored(3, [-5]))
    assert index.sizes.tolist() == [400, 0, 0, 0]
    assert index.overflows == 1


def test_an_event_of_no_rank_is_refused() -> None:
    index = KvEvents()
    index.start(RANKS, CAPACITY_BLOCKS * BLOCK_TOKENS)
    for rank in (-1, RANKS):
        with pytest.raises(ValueError, match=f"rank {rank}; ranks are 0 to 3"):
            index.apply(stored(rank, [1]))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("own_record", {"size": 0.0}),
        ("own_record", {"max_age_s": 0.0}),
        ("shared_record", {"size": -1.0}),
        ("kv_events", {"delay_s": -0.1}),
    ],
)
def test_a_value_out_of_range_is_one_line(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        INDEXERS.build(name, fields)


def test_a_record_of_nothing_knows_nothing() -> None:
    record = OwnRecord(size=0.001)
    record.start(RANKS, BLOCK_TOKENS)
    record.dispatched(prompt(0, range(5)), 0, 0.0)
    assert record.match(prompt(1, range(5))).tolist() == [0] * RANKS


def test_the_page_on_indexers_runs_and_names_all() -> None:
    names: dict[str, Any] = {}
    for code in blocks("docs/indexers.md", "python"):
        exec(code, names)
    page = PAGES["docs/indexers.md"]
    for name in INDEXERS:
        assert f"| `{name}`" in page
