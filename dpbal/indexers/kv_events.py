"""What engines say of their caches: a block has been stored, a block has been removed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.core import Request
from dpbal.errors import ConfigError
from dpbal.indexers.base import INDEXERS
from dpbal.indexers.observed import Observed

MOST_TIMES_CAPACITY = 2
"""A rank that seems to hold so many times what it can has lost removals on the way."""


@INDEXERS.register("kv_events")
@dataclass
class KvEvents(Observed):
    """Follows the events of the ranks' KV caches, and counts as cached what is on its way.

    It learns what a rank has evicted, and what others have sent there. An engine may hold a block
    more than once, and says so of each; the block is there until as many have been removed.

    Args:
        delay_s: Seconds by which a simulator brings the events late; real ones take what they take.

    Attributes:
        unknown_removals: Removals of blocks that were not there; ignored, and counted here.
        overflows: Times that a rank seemed to hold twice its KV cache, and was forgotten.

    Example:
        ``dpbal-run +balancer=marginal_prefill indexer=kv_events indexer.delay_s=0.5``
    """

    delay_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delay_s < 0:
            raise ConfigError(f"delay_s must be 0 or more, got {self.delay_s}")

    def start(self, ranks: int, capacity_tokens: int) -> None:
        """Begin with nothing stored and nothing on its way."""
        from dpbal.indexers.stored import Stored

        super().start(ranks, capacity_tokens)
        self.unknown_removals = 0
        self.overflows = 0
        self._stored = Stored(ranks)
        self._capacity_tokens = capacity_tokens
        self._block_tokens = 1  # until a request says how many

    def apply(self, events: np.ndarray) -> None:
        """Take in what has happened to the caches.

        Args:
            events: ``CACHE_EVENT[events]``, those of a rank in their order.

        Raises:
            ValueError: If an event is of a rank that does not exist.
        """
        stored = self._stored
        self.unknown_removals += stored.apply(events)
        most = MOST_TIMES_CAPACITY * self._capacity_tokens // self._block_tokens
        if stored.sizes.max() > most:
            for rank in (stored.sizes > most).nonzero()[0].tolist():
                stored.forget(rank)
                self.overflows += 1

    def clear(self, rank: int) -> None:
        """Nothing is stored there: another process sends its events now, or some were lost.

        What is on its way there still is.
        """
        self._stored.forget(rank)

    @property
    def sizes(self) -> np.ndarray:
        """Blocks that each rank has stored, each counted once."""
        return self._stored.sizes

    @property
    def size_bytes(self) -> int:
        """Memory of the index."""
        return self._stored.size_bytes + self._outstanding.size_bytes

    def _extend_cached(self, request: Request, hashes: np.ndarray, matched: np.ndarray) -> None:
        self._block_tokens = request.block_tokens
        self._stored.extend(hashes, matched)
