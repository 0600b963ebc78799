"""What the blocks that ranks hold are worth to a request: tokens, and seconds of prefill left."""

from __future__ import annotations

import numpy as np

from dpbal.core import Request, View
from dpbal.indexers.base import Indexer
from dpbal.jit import njit
from dpbal.step_time import queued_s as _queued_s

queued_s = njit(_queued_s)


@njit
def _write_hits(
    blocks: np.ndarray,
    block_tokens: int,
    prompt_tokens: int,
    prefill_s_per_token: float,
    attention_s_per_pair: float,
    cached_tokens: np.ndarray,
    own_prefill_s: np.ndarray,
) -> None:
    for rank in range(blocks.size):
        # the last token is always computed, for its logits
        cached = min(blocks[rank] * block_tokens, prompt_tokens - 1)
        cached_tokens[rank] = cached
        own_prefill_s[rank] = queued_s(
            prefill_s_per_token,
            attention_s_per_pair,
            prompt_tokens - cached,
            prompt_tokens * prompt_tokens - cached * cached,
        )


class Hits:
    """Keeps a view's numbers on prefixes at those of the request that is being placed.

    Args:
        view: What the balancer sees.
        indexer: Which blocks ranks hold.
    """

    def __init__(self, view: View, indexer: Indexer) -> None:
        view.cached_tokens = np.zeros(view.ranks, np.int64)
        view.own_prefill_s = np.zeros(view.ranks)
        self._view = view
        self._indexer = indexer

    def look_up(self, request: Request) -> None:
        """Look up what each rank holds of a request's prompt."""
        view, step_time = self._view, self._view.step_time
        _write_hits(
            self._indexer.match(request),
            request.block_tokens,
            request.prompt_tokens,
            step_time.prefill_s_per_token,
            step_time.attention_s_per_pair,
            view.cached_tokens,
            view.own_prefill_s,
        )
        view.cached_blocks = self._indexer.sizes
