"""Microseconds of asking what ranks hold of a prompt and of sending it, and the index's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns

import numpy as np

from dpbal.core import Request
from dpbal.indexers import CACHE_EVENT, INDEXERS, Indexer, KvEvents, Nothing
from dpbal.indexers.token_hashes import token_hashes

TARGET_US = 50.0
"""Most microseconds p50, of a look-up of ``TARGET_BLOCKS`` for ``TARGET_RANKS``, and of hashing."""

TARGET_RANKS, TARGET_BLOCKS = 8, 1000

LOOK_UP, DISPATCH, HASH = "look up", "look up, send, end", "hash the tokens"
ALL, ONE = "all ranks hold all", "one holds all, others a tenth"

BLOCK_TOKENS = 16
PROMPTS = 16
HELD_BLOCKS = 250_000
CAPACITY_TOKENS = 2**30
TOKENS = 12_288

NAMES = tuple(
    name
    for name, cls in INDEXERS.items()
    if not cls.in_simulator_only and not issubclass(cls, Nothing)
)

DESCRIPTION = (
    f"{PROMPTS} prompts in turn, beside {HELD_BLOCKS:,} blocks of others, each on one rank, which "
    f"the memory is of; {TOKENS:,} tokens are hashed, as an array"
)


@dataclass(frozen=True)
class PrefixRow:
    """What one operation took.

    Attributes:
        operation: What was done.
        indexer: By which, or None where none is asked.
        ranks: Number of ranks, 0 where none are asked for.
        blocks: Blocks of the prompt.
        holders: Who holds the prompts, or None where nobody is asked.
        p50_us: Median over the repeats of each repeat's p50.
        p50_us_min: Smallest p50 of a repeat.
        p50_us_max: Largest p50 of a repeat.
        p99_us: Median over the repeats of each repeat's p99.
        bytes_per_block: Memory of the index over the blocks that it held before the prompts, or
            None where there is none.
        target_us: Most that ``p50_us`` should be, or None where there is no target.
    """

    operation: str
    indexer: str | None
    ranks: int
    blocks: int
    holders: str | None
    p50_us: float
    p50_us_min: float
    p50_us_max: float
    p99_us: float
    bytes_per_block: float | None
    target_us: float | None


def measure(
    indexers: Sequence[str],
    ranks: Sequence[int],
    blocks: Sequence[int],
    repeats: int,
    rounds: int,
    seed: int,
) -> list[PrefixRow]:
    """Time each indexer, in each repeat ``rounds`` look-ups and as many dispatches, and hashing."""
    random = np.random.default_rng(seed)
    rows = [_hash_row(random, repeats, rounds)]
    for number in ranks:
        for count in blocks:
            for holders in (ALL, ONE):
                for name in indexers:
                    rows += _rows(name, number, count, holders, repeats, rounds, random)
    return rows


def _hash_row(random: np.random.Generator, repeats: int, rounds: int) -> PrefixRow:
    token_ids = random.integers(0, 130_000, TOKENS)
    runs = _runs([lambda: token_hashes(token_ids, BLOCK_TOKENS)], repeats, rounds)
    blocks = TOKENS // BLOCK_TOKENS
    return PrefixRow(HASH, None, 0, blocks, None, *_summary(runs), None, TARGET_US)


def _rows(
    name: str,
    ranks: int,
    blocks: int,
    holders: str,
    repeats: int,
    rounds: int,
    random: np.random.Generator,
) -> list[PrefixRow]:
    indexer = INDEXERS.build(name, {})
    indexer.start(ranks, CAPACITY_TOKENS)
    for rank, hashes in enumerate(np.array_split(_hashes(random, HELD_BLOCKS), ranks)):
        _hold(indexer, _request(rank, hashes), rank)
    size_bytes: int | None = getattr(indexer, "size_bytes", None)  # those of others may not say
    bytes_per_block = None if size_bytes is None else size_bytes / HELD_BLOCKS
    prompts = [_request(number, _hashes(random, blocks)) for number in range(PROMPTS)]
    for number, prompt in enumerate(prompts):
        assert prompt.block_hashes is not None
        for rank in range(ranks):
            has_all = holders == ALL or rank == number % ranks
            part = prompt.block_hashes if has_all else prompt.block_hashes[: blocks // 10]
            _hold(indexer, _request(prompt.id, part), rank)

    def look_up(prompt: Request) -> Callable[[], object]:
        return lambda: indexer.match(prompt)

    def dispatch(prompt: Request, rank: int) -> Callable[[], object]:
        def call() -> None:
            indexer.match(prompt)
            indexer.dispatched(prompt, rank, 0.0)
            indexer.finished(prompt.id)

        return call

    operations = {
        LOOK_UP: [look_up(prompt) for prompt in prompts],
        DISPATCH: [dispatch(prompt, n % ranks) for n, prompt in enumerate(prompts)],
    }
    rows = []
    for operation, calls in operations.items():
        summary = _summary(_runs(calls, repeats, rounds))
        has_target = (operation, ranks, blocks) == (LOOK_UP, TARGET_RANKS, TARGET_BLOCKS)
        target_us = TARGET_US if has_target else None
        case = (operation, name, ranks, blocks, holders)
        rows.append(PrefixRow(*case, *summary, bytes_per_block, target_us))
    return rows


def _hold(indexer: Indexer, request: Request, rank: int) -> None:
    """Let an indexer know that a rank holds a prompt, in the way that it learns of it."""
    if not isinstance(indexer, KvEvents):
        indexer.dispatched(request, rank, 0.0)
        return
    assert request.block_hashes is not None
    events = np.zeros(len(request.block_hashes), CACHE_EVENT)
    events["rank"], events["hash"], events["stored"] = rank, request.block_hashes, 1
    indexer.apply(events)


def _hashes(random: np.random.Generator, count: int) -> np.ndarray:
    return random.integers(-(2**63), 2**63 - 1, count)


def _request(number: int | str, hashes: np.ndarray) -> Request:
    tokens = 1 + len(hashes) * BLOCK_TOKENS
    return Request(number, 0.0, tokens, block_hashes=hashes, block_tokens=BLOCK_TOKENS)


def _runs(calls: Sequence[Callable[[], object]], repeats: int, rounds: int) -> list[list[int]]:
    for call in calls:  # compile
        call()
    return [[_took_ns(calls[k % len(calls)]) for k in range(rounds)] for _ in range(repeats)]


def _took_ns(call: Callable[[], object]) -> int:
    before_ns = perf_counter_ns()
    call()
    return perf_counter_ns() - before_ns


def _summary(runs: list[list[int]]) -> tuple[float, float, float, float]:
    p50_us = [float(np.median(run)) / 1e3 for run in runs]
    p99_us = median(float(np.quantile(run, 0.99)) / 1e3 for run in runs)
    return median(p50_us), min(p50_us), max(p50_us), p99_us
