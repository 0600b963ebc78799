"""vLLM's events become changes of what can be found."""

from __future__ import annotations

import numpy as np

from dpbal.backends.vllm.front_end.prefixes import Prompt
from tests.vllm.cache_events import stored
from tests.vllm.engine import BLOCK


def test_what_is_more_than_tokens_is_left_out_with_all_that_follows() -> None:
    from vllm.distributed.kv_events import AllBlocksCleared, BlockRemoved

    from dpbal.backends.vllm.rank.cached_blocks import CachedBlocks

    whole = Prompt(6 * BLOCK, range(6 * BLOCK), BLOCK).block_hashes()
    assert whole is not None
    blocks = CachedBlocks(BLOCK, 100)
    image = [None, None, (("an image", 3),)]
    hashes, there = blocks.take([stored(3, None, image), stored(1, bytes([2]), [None])])
    assert (hashes.tolist(), there.tolist()) == (whole[:2].tolist(), [1, 1])
    embedded = stored(1, bytes([1]), [(b"a digest",)])
    assert blocks.take([embedded])[0].size == 0
    tail = [stored(1, bytes([1]), [None]), BlockRemoved([bytes([1])], "GPU")]
    hashes, there = blocks.take(tail)
    assert list(zip(hashes.tolist(), there.tolist(), strict=True)) == [(whole[2], 1), (whole[1], 0)]
    elsewhere = BlockRemoved([bytes([0])], "CPU")
    assert blocks.take([elsewhere])[0].size == 0
    hashes, there = blocks.take([AllBlocksCleared()])
    assert sorted(hashes.tolist()) == sorted([whole[0], whole[2]])
    assert not there.any()
    assert len(blocks) == 0


def test_a_block_that_is_there_twice_is_gone_when_both_are() -> None:
    from vllm.distributed.kv_events import BlockRemoved

    from dpbal.backends.vllm.rank.cached_blocks import CachedBlocks

    blocks = CachedBlocks(BLOCK, 100)
    blocks.take([stored(2, None, []), stored(2, None, [])])
    removed = BlockRemoved([bytes([1])], "GPU")
    assert blocks.take([removed])[0].size == 0
    assert blocks.take([removed])[1].tolist() == [0]
    assert len(blocks) == 1


def test_more_blocks_than_there_can_be_are_not_believed() -> None:
    from dpbal.backends.vllm.rank.cached_blocks import CachedBlocks

    blocks = CachedBlocks(BLOCK, 4)
    blocks.take([stored(3, None, []), stored(3, None, [])])
    hashes, there = blocks.take([stored(2, bytes([2]), [])])
    assert there.tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert len(set(hashes.tolist())) == 5
    assert len(blocks) == 0
    assert blocks.take([stored(2, None, [])])[1].tolist() == [1, 1]


def test_an_adapter_is_part_of_the_hash() -> None:
    from dpbal.backends.vllm.rank.cached_blocks import CachedBlocks

    own = Prompt(2 * BLOCK, range(2 * BLOCK), BLOCK, lora="a", salt="s").block_hashes()
    event = stored(2, None, [("a", "s"), ("a",)], lora="a")
    assert own is not None
    assert np.array_equal(CachedBlocks(BLOCK, 100).take([event])[0], own)
