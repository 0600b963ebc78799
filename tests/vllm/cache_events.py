"""What vLLM says of a prefix cache."""

from __future__ import annotations

from typing import Any

from tests.vllm.engine import BLOCK


def stored(blocks: int, parent: bytes | None, keys: list[Any], lora: str | None = None) -> Any:
    """vLLM's event; the hashes begin with the parent's, and the tokens count on from there."""
    from vllm.distributed.kv_events import BlockStored

    first = 0 if parent is None else 1 + parent[-1]
    return BlockStored(
        block_hashes=[bytes([first + k]) for k in range(blocks)],
        parent_block_hash=parent,
        token_ids=list(range(first * BLOCK, (first + blocks) * BLOCK)),
        block_size=BLOCK,
        lora_id=None,
        medium="GPU",
        lora_name=lora,
        extra_keys=keys,
    )
