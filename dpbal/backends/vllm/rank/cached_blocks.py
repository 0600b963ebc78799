"""Which blocks one engine's prefix cache holds, under dpbal's hashes, from vLLM's events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from vllm.distributed.kv_events import MEDIUM_GPU, AllBlocksCleared, BlockRemoved, BlockStored

from dpbal.backends.vllm.cache_messages import seed
from dpbal.indexers.token_hashes import extend_hash, token_hashes


class _Block(msgspec.Struct, gc=False):
    hash: int
    copies: int = 1


class CachedBlocks:
    """Turns vLLM's events into changes of what can be found, and remembers what is there.

    vLLM says which tokens a block has only when it is stored. A block whose key holds more than
    tokens, the name of an adapter and a salt, such as an image, is left out, and so are those that
    follow it. Of a model with several groups of layers the first is followed.

    Where vLLM stores a block twice it says so twice, and so it does of the removals. A request with
    ``kv_cache_report_mode`` "full" has it say again what it finds, which looks like another copy.
    If by that more blocks seem to be there than there can be, nothing is believed to be there until
    vLLM says so again.

    Args:
        block_tokens: Tokens in a block.
        most_blocks: The most that there can be, those in the pool.
    """

    def __init__(self, block_tokens: int, most_blocks: int) -> None:
        self._block_tokens = block_tokens
        self._most_blocks = most_blocks
        self._blocks: dict[Any, _Block] = {}  # by vLLM's hash

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def hashes(self) -> np.ndarray:
        """``int64[blocks]``, all that is there."""
        found = (block.hash for block in self._blocks.values())
        return np.fromiter(found, np.int64, len(self._blocks))

    def take(self, events: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Take in events, in their order.

        Returns:
            ``int64[changes]``, hashes; ``int64[changes]``, 1 where a block can be found from now
            on and 0 where no longer.
        """
        changes: list[tuple[int, int]] = []
        for event in events:
            if isinstance(event, AllBlocksCleared):
                changes.extend((own, 0) for own in self._clear())
            elif event.medium not in (None, MEDIUM_GPU) or event.group_idx:
                continue
            elif isinstance(event, BlockStored):
                changes.extend((own, 1) for own in self._store(event))
            elif isinstance(event, BlockRemoved):
                changes.extend((own, 0) for own in self._remove(event))
        if len(self._blocks) > self._most_blocks:
            changes.extend((own, 0) for own in self._clear())
        hashes, stored = np.array(changes, np.int64).reshape(-1, 2).T
        return hashes, stored

    def _clear(self) -> list[int]:
        gone = [block.hash for block in self._blocks.values()]
        self._blocks.clear()
        return gone

    def _store(self, event: BlockStored) -> list[int]:
        count, size = len(event.block_hashes), event.block_size
        if size != self._block_tokens or len(event.token_ids) != count * size:
            return []  # a part of a block, or a range with gaps
        count, salt = _understood(event)
        tokens = event.token_ids[: count * size]
        if event.parent_block_hash is None:
            own = token_hashes(tokens, size, seed(event.lora_name or "", salt))
        else:
            parent = self._blocks.get(event.parent_block_hash)
            if parent is None:
                return []
            own = extend_hash(parent.hash, tokens, size)
        new = []
        for theirs, ours in zip(event.block_hashes, own.tolist(), strict=False):
            block = self._blocks.get(theirs)
            if block is not None:  # requests that were computed at once
                block.copies += 1
                continue
            self._blocks[theirs] = _Block(ours)
            new.append(ours)
        return new

    def _remove(self, event: BlockRemoved) -> list[int]:
        gone = []
        for theirs in event.block_hashes:
            block = self._blocks.get(theirs)
            if block is None:
                continue
            block.copies -= 1
            if block.copies == 0:
                del self._blocks[theirs]
                gone.append(block.hash)
        return gone


def _understood(event: BlockStored) -> tuple[int, str]:
    """How many leading blocks of an event have keys that are understood, and their salt."""
    salt = ""
    for place, keys in enumerate(event.extra_keys or ()):
        more = list(keys or ())
        if event.lora_name is not None and more[:1] == [event.lora_name]:
            more = more[1:]
        is_first = place == 0 and event.parent_block_hash is None
        if is_first and len(more) == 1 and isinstance(more[0], str):
            salt = more.pop()
        if more:
            return place, salt
    return len(event.block_hashes), salt
