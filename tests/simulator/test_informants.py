"""Indexers learn of the ranks' caches what a plain look at every single block says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dpbal.backends.simulator.layout import State
from dpbal.backends.simulator.simulator import Simulator
from dpbal.indexers import Indexer, KvEvents, Oracle
from dpbal.modes import GroupKind
from dpbal.step_time import StepTime
from dpbal.transports import Delayed, Local, Transport
from dpbal.workloads import Requests
from tests.simulator.runs import Probe, Run, simulate, workload

STEP_TIME = StepTime(fixed_s=6e-3, prefill_s_per_token=70e-6, decode_s_per_seq=200e-6)
RANKS = 3
BLOCK = 4
PLAIN = Simulator(48, 8, BLOCK, 600)
STORE = replace(PLAIN, shared_prefix_store=True)
DISTURBED = replace(PLAIN, restarts={1: 1.0, 2: 0.0}, cache_resets=[0.5, 2.0])


def tree(ratio: int, count: int = 150) -> Requests:
    """Prompts that walk in a small tree of prefixes, one hash for ``ratio`` KV blocks."""
    rng = np.random.default_rng(ratio)
    numbers: dict[tuple[int, ...], int] = {}
    rows, hashes = [], []
    for at_s in np.cumsum(rng.exponential(0.02, count)).tolist():
        path = rng.integers(0, 2, rng.integers(0, 24 // ratio)).tolist()
        prefixes = [tuple(path[: k + 1]) for k in range(len(path))]
        hashes.append([7 * numbers.setdefault(prefix, len(numbers)) for prefix in prefixes])
        tail = int(rng.integers(1, BLOCK * ratio))
        rows.append((at_s, len(path) * BLOCK * ratio + tail, int(rng.integers(1, 30))))
    return workload(rows, hashes=hashes, hash_block_tokens=BLOCK * ratio)


def run(
    requests: Requests,
    kind: GroupKind,
    engine: Simulator,
    indexer: Callable[[], Indexer],
) -> tuple[Run, Probe]:
    probe = Probe(turns=RANKS)  # its choices do not depend on what it is told
    done = simulate(
        requests,
        STEP_TIME,
        kind=kind,
        ranks=RANKS,
        engine=engine,
        balancer=lambda: probe,
        indexer=indexer,
    )
    return done, probe


def held(state: State, requests: Requests) -> list[set[int]]:
    """The workload's hashes whose last KV block each rank holds, block by block."""
    ratio = int(state.spec["hash_ratio"][0])
    values = np.unique(requests.block_hashes)
    keys = [blocks["key"][blocks["key"] >= 0] for blocks in state.blocks]
    return [{int(values[key // ratio]) for key in own if key % ratio == ratio - 1} for own in keys]


def leading(hashes: np.ndarray, known: set[int]) -> int:
    """How many of the first hashes are known."""
    count = 0
    while count < len(hashes) and int(hashes[count]) in known:
        count += 1
    return count


@pytest.mark.parametrize("kind", GroupKind)
@pytest.mark.parametrize("ratio", [1, 3])
@pytest.mark.parametrize("engine", [PLAIN, DISTURBED])
@pytest.mark.parametrize(
    ("indexer", "delay_s"),
    [(Oracle, 0.0), (KvEvents, 0.0), (lambda: KvEvents(delay_s=0.3), 0.3)],
)
def test_a_dispatcher_knows_what_was_held_and_what_is_on_its_way(
    indexer: Callable[[], Indexer], delay_s: float, engine: Simulator, ratio: int, kind: GroupKind
) -> None:
    requests = tree(ratio)
    done, probe = run(requests, kind, engine, indexer)
    rows = list(requests)
    ends_s = np.where(np.isnan(done.requests["finish_s"]), np.inf, done.requests["finish_s"])
    nonzero = 0
    for number in range(20, len(rows), 13):
        request, now_s = rows[number], rows[number].arrival_s
        assert request.block_hashes is not None
        then_s = now_s - delay_s
        stop = replace(engine, max_time_s=float(np.nextafter(then_s, 0.0)))
        cached = held(run(requests, kind, stop, indexer)[0].state, requests)
        for rank, at_s in (engine.restarts or {}).items():
            if then_s < at_s + 0.05 and now_s > at_s:  # nobody will tell what came before
                cached[rank] &= held_since(requests, kind, engine, rank, then_s)
        on_the_way: list[set[int]] = [set() for _ in range(RANKS)]
        for other in rows[:number]:
            if ends_s[other.id] > now_s and other.block_hashes is not None:
                on_the_way[int(done.requests["rank"][other.id])] |= set(other.block_hashes.tolist())
        matched = [leading(request.block_hashes, cached[r] | on_the_way[r]) for r in range(RANKS)]
        tokens = np.minimum(np.array(matched) * BLOCK * ratio, request.prompt_tokens - 1)
        assert probe.cached_tokens[number].tolist() == tokens.tolist(), now_s
        assert probe.cached_blocks[number].tolist() == [len(own) for own in cached]
        nonzero += bool(tokens.any())
    assert nonzero > 3


def held_since(
    requests: Requests, kind: GroupKind, engine: Simulator, rank: int, then_s: float
) -> set[int]:
    """What a rank held then, if its new process already ran."""
    stop = replace(engine, max_time_s=float(np.nextafter(then_s, 0.0)))
    state = run(requests, kind, stop, Oracle)[0].state
    return held(state, requests)[rank] if state.ranks["epoch"][rank] == 2 else set()


def test_events_tell_only_of_what_is_there() -> None:
    indexers: list[KvEvents] = []

    def remembered() -> KvEvents:
        indexers.append(KvEvents())
        return indexers[-1]

    run(tree(1), GroupKind.lockstep, DISTURBED, remembered)
    assert [(index.unknown_removals, index.overflows) for index in indexers] == [(0, 0)]


@pytest.mark.parametrize("transport", [Local(), Delayed(delay_s=0.3)])
def test_every_dispatcher_knows_in_the_end_what_a_restarted_rank_holds(
    transport: Transport,
) -> None:
    requests = tree(2)
    last_s = float(requests.arrival_s[-1])
    ends = workload([(last_s + 100 + k, 1, 1) for k in range(3)])  # each hears the last events
    offsets = requests.hash_offsets
    assert offsets is not None
    asked = replace(
        requests,
        arrival_s=np.concatenate([requests.arrival_s, ends.arrival_s]),
        prompt_tokens=np.concatenate([requests.prompt_tokens, ends.prompt_tokens]),
        output_tokens=np.concatenate([requests.output_tokens, ends.output_tokens]),
        hash_offsets=np.concatenate([offsets, np.full(3, offsets[-1])]),
    )
    done = simulate(
        asked,
        STEP_TIME,
        ranks=RANKS,
        dispatchers=3,
        engine=replace(PLAIN, restarts={1: 1.0}),
        balancer=lambda: Probe(turns=RANKS),
        transport=transport,
        indexer=KvEvents,
    )
    known = held(done.state, asked)
    for dispatcher in done.parts.dispatchers:
        for request in requests:
            assert dispatcher.indexer is not None
            assert request.block_hashes is not None
            expected = [leading(request.block_hashes, blocks) for blocks in known]
            assert dispatcher.indexer.match(request).tolist() == expected


def test_the_oracle_counts_what_a_shared_store_has() -> None:
    keys = list(range(5))
    requests = workload([(0.0, 24, 1), (1.0, 24, 1)], hashes=[keys, keys], hash_block_tokens=BLOCK)
    for engine, tokens in [(PLAIN, [20, 0, 0]), (STORE, [20, 20, 20])]:
        _, probe = run(requests, GroupKind.independent, engine, Oracle)
        assert probe.cached_tokens[1].tolist() == tokens


@pytest.mark.parametrize("indexer", [Oracle, KvEvents])
def test_without_a_prefix_cache_nothing_is_ever_held(indexer: Callable[[], Indexer]) -> None:
    rows = [(float(k), 24, 1) for k in range(4)]
    requests = workload(rows, hashes=[list(range(5))] * 4, hash_block_tokens=BLOCK)
    engine = replace(PLAIN, prefix_cache=False)
    _, probe = run(requests, GroupKind.lockstep, engine, indexer)
    assert not np.array(probe.cached_tokens).any()
    assert not np.array(probe.cached_blocks).any()
