"""What this dispatcher has sent where: no engine has to tell it anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.core import Request
from dpbal.errors import ConfigError
from dpbal.indexers.base import INDEXERS, Indexer


@INDEXERS.register("own_record")
@dataclass
class OwnRecord(Indexer):
    """Believes each rank to hold the prompts that this dispatcher has sent there last.

    It keeps the blocks of each rank in the order of their last use, and forgets the oldest beyond
    its size. It counts a prompt from when it is sent, and never learns what a rank has evicted, nor
    what others have sent. A record that is too small is worse than one that is too large, which at
    worst expects a hit that is not there.

    Args:
        size: How many times the KV cache of a rank it remembers.
        max_age_s: Blocks that were not used for so long are forgotten at the next dispatch; None
            for never.

    Example:
        ``dpbal-run +balancer=marginal_prefill indexer.size=4``
    """

    size: float = 2.0
    max_age_s: float | None = 3600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size <= 0:
            raise ConfigError(f"size must be above 0, got {self.size}; the default is 2")
        if self.max_age_s is not None and self.max_age_s <= 0:
            raise ConfigError(
                f"max_age_s must be above 0, got {self.max_age_s}; give null for no limit"
            )

    def start(self, ranks: int, capacity_tokens: int) -> None:
        """Begin with nothing sent anywhere."""
        from dpbal.indexers.recency import Recency

        self._recency = Recency(ranks)
        self._tokens = int(self.size * capacity_tokens)
        self._matched = np.zeros(ranks, np.int64)

    def match(self, request: Request) -> np.ndarray:
        """Leading blocks that were sent to each rank and are not forgotten."""
        matched = self._matched
        matched[:] = 0
        if request.block_hashes is not None:
            self._recency.extend(request.block_hashes, matched)
        return matched

    def dispatched(self, request: Request, rank: int, now_s: float) -> None:
        """The rank holds the prompt from now on."""
        if self.max_age_s is not None:
            self._recency.forget_older(now_s - self.max_age_s)
        if request.block_hashes is not None:
            self._touch(request.block_hashes, rank, request.block_tokens, now_s)

    def forget(self, rank: int) -> None:
        """What was sent there is lost."""
        self._recency.forget(rank)

    @property
    def sizes(self) -> np.ndarray:
        """Blocks remembered of each rank."""
        return self._recency.sizes

    @property
    def size_bytes(self) -> int:
        """Memory of the record."""
        return self._recency.size_bytes

    def _touch(self, hashes: np.ndarray, rank: int, block_tokens: int, now_s: float) -> None:
        self._recency.touch(hashes, rank, now_s, self._tokens // block_tokens)
