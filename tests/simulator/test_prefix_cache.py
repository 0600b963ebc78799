"""The prefix cache evicts as a plain list of free blocks does, the least recently used first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpbal.backends.base import Outcome
from dpbal.backends.simulator.simulator import Simulator
from dpbal.errors import ConfigError
from dpbal.step_time import StepTime
from tests.simulator.runs import simulate, workload

FAST = StepTime(prefill_s_per_token=1e-6)
BLOCK = 4


class FreeList:
    """A cache for requests that come one at a time.

    Its free blocks stand in the order in which they will be taken; a block is the prefix it holds,
    or None for one that nobody can ask for.
    """

    def __init__(self, blocks: int) -> None:
        self.free: list[tuple[int, ...] | None] = [None] * blocks

    def serve(self, prompt: int, output: int, prefixes: list[tuple[int, ...]]) -> int:
        """Take and return all blocks of one request; returns its cached tokens."""
        hits = 0
        while hits < min(len(prefixes), (prompt - 1) // BLOCK) and prefixes[hits] in self.free:
            hits += 1
        held: list[tuple[int, ...] | None] = list(prefixes[:hits])
        for prefix in held:
            self.free.remove(prefix)
        computed = prompt + output - 1
        partial = computed % BLOCK > 0
        while len(held) < -(-computed // BLOCK):
            self.free.pop(0)
            index = len(held)
            is_known = index < len(prefixes) and prefixes[index] not in self.free
            held.append(prefixes[index] if is_known else None)
        if partial:
            self.free.insert(0, held.pop())
        self.free += reversed(held)
        return hits * BLOCK


@st.composite
def prompts(draw: st.DrawFn) -> list[tuple[int, int, list[int]]]:
    """Prompt tokens, output tokens, and what is in the hashed blocks: a walk in a small tree."""
    one = st.tuples(
        st.integers(1, 48), st.integers(1, 12), st.lists(st.integers(0, 1), max_size=12)
    )
    drawn = draw(st.lists(one, min_size=1, max_size=40))
    return [(prompt, output, path[: prompt // BLOCK]) for prompt, output, path in drawn]


@settings(max_examples=250, derandomize=True)
@given(prompts(), st.integers(15, 40), st.sampled_from([5, 16, 2048]))
def test_hits_are_those_of_a_plain_list(
    drawn: list[tuple[int, int, list[int]]], blocks: int, chunk: int
) -> None:
    numbers: dict[tuple[int, ...], int] = {}
    cache = FreeList(blocks)
    expected, hashes = [], []
    for prompt, output, path in drawn:
        prefixes = [tuple(path[: k + 1]) for k in range(len(path))]
        hashes.append([numbers.setdefault(prefix, len(numbers)) for prefix in prefixes])
        expected.append(cache.serve(prompt, output, prefixes))

    rows = [(float(k), prompt, output) for k, (prompt, output, _) in enumerate(drawn)]
    engine = Simulator(chunk, 8, BLOCK, blocks * BLOCK)
    requests = workload(rows, hashes=hashes, hash_block_tokens=BLOCK)
    run = simulate(requests, FAST, engine=engine)
    assert (run.requests["outcome"] == Outcome.finished).all()
    assert run.requests["cached_tokens"].tolist() == expected


def test_a_prefix_outlives_its_tail() -> None:
    first, other = list(range(8)), list(range(100, 106))
    rows = [(float(k), len(keys) * BLOCK + 1, 1) for k, keys in enumerate([first, other, first])]
    requests = workload(rows, hashes=[first, other, first], hash_block_tokens=BLOCK)
    engine = Simulator(block_size=BLOCK, kv_capacity_tokens=10 * BLOCK)
    run = simulate(requests, FAST, engine=engine)
    # of 10 blocks the first prompt filled 8; the second needs 7, so it evicts 5 of them
    assert run.requests["cached_tokens"].tolist() == [0, 0, 3 * BLOCK]


def test_a_prompt_that_is_being_computed_is_shared_in_the_same_step() -> None:
    rows = [(0.0, 50, 1), (1e-6, 40, 1), (2e-6, 40, 1)]
    keys = [[99], list(range(10)), list(range(10))]
    requests = workload(rows, hashes=keys, hash_block_tokens=BLOCK)
    run = simulate(requests, FAST, engine=Simulator(block_size=BLOCK, kv_capacity_tokens=4000))
    assert run.requests["cached_tokens"].tolist() == [0, 0, 36]
    assert run.requests["first_token_s"][1] == run.requests["first_token_s"][2]
    assert run.steps["prefill_tokens"].tolist() == [50, 44]


def test_a_shared_prefix_takes_its_blocks_once() -> None:
    rows = [(0.0, 50, 1), (1e-6, 41, 50), (2e-6, 41, 50), (3e-6, 41, 50)]
    keys = [[99], *([list(range(10))] * 3)]
    requests = workload(rows, hashes=keys, hash_block_tokens=BLOCK)
    run = simulate(requests, FAST, engine=Simulator(block_size=BLOCK, kv_capacity_tokens=4000))
    assert run.steps["kv_used_tokens"][1] == (10 + 3) * BLOCK


def test_a_block_size_that_does_not_divide_the_hashed_blocks_is_refused() -> None:
    requests = workload([(0.0, 50, 1)], hashes=[[1]], hash_block_tokens=18)
    with pytest.raises(ConfigError, match=r"block_size=4 does not divide the 18 tokens"):
        simulate(requests, FAST, engine=Simulator(block_size=4))
