"""What indexers that see the ranks' caches have in common: what is on its way counts as cached."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from dpbal.core import Request
from dpbal.indexers.base import Indexer


@dataclass
class Observed(Indexer):
    """Sees what ranks have cached, at once or late, and adds what it has sent and has not ended."""

    def start(self, ranks: int, capacity_tokens: int) -> None:
        """Begin with nothing sent anywhere."""
        from dpbal.indexers.outstanding import Outstanding

        self._outstanding = Outstanding(ranks)
        self._matched = np.zeros(ranks, np.int64)

    def match(self, request: Request) -> np.ndarray:
        """Leading blocks that are cached or on their way."""
        matched = self._matched
        matched[:] = 0
        hashes = request.block_hashes
        if hashes is None or len(hashes) == 0:
            return matched
        is_longer = True
        while is_longer:  # what is on its way may follow what is cached, and the other way round
            self._extend_cached(request, hashes, matched)
            is_longer = self._outstanding.extend(hashes, matched)
        return matched

    @abstractmethod
    def _extend_cached(self, request: Request, hashes: np.ndarray, matched: np.ndarray) -> None:
        """Raise each rank's leading blocks by those that follow and are cached there.

        Args:
            request: Whose prompt.
            hashes: ``int64[blocks]``, its hashes, at least one.
            matched: ``int64[ranks]``, to raise.
        """

    def dispatched(self, request: Request, rank: int, now_s: float) -> None:
        """Its blocks count as cached until it ends."""
        self._outstanding.add(request, rank)

    def finished(self, request_id: int | str) -> None:
        """What it has left in the cache is seen there."""
        self._outstanding.remove(request_id)

    def forget(self, rank: int) -> None:
        """Nothing is on its way there any more; what is cached there is seen."""
        self._outstanding.forget(rank)

    def cache_reset(self, rank: int) -> None:
        """It is seen."""
