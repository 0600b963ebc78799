from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpbal.indexers.token_hashes import extend_hash, seed_of, token_hashes

TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=200)


@given(TOKENS, st.integers(1, 17), st.data())
def test_a_changed_token_changes_every_hash_from_its_block_on(
    tokens: list[int], block_tokens: int, data: st.DataObject
) -> None:
    hashes = token_hashes(tokens, block_tokens)
    assert len(hashes) == len(tokens) // block_tokens
    assert len(set(hashes.tolist())) == len(hashes)
    if not tokens:
        return
    place = data.draw(st.integers(0, len(tokens) - 1))
    other = tokens.copy()
    other[place] += data.draw(st.sampled_from([-1, 1, 2**20]))
    changed = token_hashes(other, block_tokens)
    block = place // block_tokens
    assert np.array_equal(changed[:block], hashes[:block])
    assert not np.isin(changed[block:], hashes).any()


@given(TOKENS, st.integers(1, 17), st.integers(0, 12))
def test_a_chain_may_be_continued_from_any_block(
    tokens: list[int], block_tokens: int, blocks: int
) -> None:
    hashes = token_hashes(tokens, block_tokens, seed_of("adapter"))
    if 0 < blocks < len(hashes):
        rest = extend_hash(hashes.item(blocks - 1), tokens[blocks * block_tokens :], block_tokens)
        assert np.array_equal(rest, hashes[blocks:])


def test_two_tokens_in_the_other_order_are_another_prompt() -> None:
    assert token_hashes([7, 8], 2)[0] != token_hashes([8, 7], 2)[0]
    assert token_hashes([7, 8, 9, 8], 4)[0] != token_hashes([9, 8, 7, 8], 4)[0]


def test_short_prompts_do_not_collide() -> None:
    hashes = token_hashes(np.arange(300_000) % 550, 2)  # all are chained, and so all differ
    assert len(np.unique(hashes)) == 150_000
    alone = [token_hashes([a, b], 2).item() for a in range(200) for b in range(200)]
    assert len(set(alone)) == 200 * 200


def test_any_bit_of_a_token_changes_half_of_a_hash() -> None:
    empty = token_hashes([0] * 16, 16)[0]
    flipped = []
    for place in range(16):
        for bit in range(18):
            tokens = [0] * 16
            tokens[place] = 1 << bit
            differing = int(np.uint64(empty ^ token_hashes(tokens, 16)[0]))
            flipped.append(differing.bit_count())
    assert 31 < np.mean(flipped) < 33
    assert min(flipped) > 10


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.uint16, np.int64])
def test_the_kind_of_numbers_does_not_matter(kind: type) -> None:
    tokens = [5, 60_000, 3, 17]
    expected = token_hashes(tokens, 2)
    assert np.array_equal(token_hashes(np.array(tokens, kind), 2), expected)
    assert np.array_equal(token_hashes(np.repeat(np.array(tokens, kind), 2)[::2], 2), expected)


def test_seeds_separate_prompts_and_parts_are_not_run_together() -> None:
    assert token_hashes([1, 2], 2, seed_of("a"))[0] != token_hashes([1, 2], 2, seed_of("b"))[0]
    assert len({seed_of(), seed_of(""), seed_of("ab"), seed_of("a", "b"), seed_of("b", "a")}) == 5


def test_other_processes_hash_alike() -> None:
    code = (
        "import json; from dpbal.indexers.token_hashes import seed_of, token_hashes;"
        "print(json.dumps(token_hashes(list(range(40)), 16, seed_of('lora', 'salt')).tolist()))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = token_hashes(list(range(40)), 16, seed_of("lora", "salt")).tolist()
    assert json.loads(there.stdout) == here


def test_a_block_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 token, got 0"):
        token_hashes([1, 2], 0)
