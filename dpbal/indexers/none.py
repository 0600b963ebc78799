"""No knowledge of any cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.core import Request
from dpbal.indexers.base import INDEXERS, Indexer


@INDEXERS.register("none")
@dataclass
class Nothing(Indexer):
    """Believes that no rank holds anything; what to compare the others with.

    Ranks that cache nothing (``backend.prefix_cache=false``) always have this one.

    Example:
        ``dpbal-run +balancer=marginal_prefill indexer=none workload=mooncake_like``
    """

    def start(self, ranks: int, capacity_tokens: int) -> None:
        """Take the size of the group."""
        self._nothing = np.zeros(ranks, np.int64)

    def match(self, request: Request) -> np.ndarray:
        """All 0."""
        return self._nothing

    def dispatched(self, request: Request, rank: int, now_s: float) -> None:
        """Nothing is remembered of it."""

    def forget(self, rank: int) -> None:
        """There is nothing to forget."""

    @property
    def sizes(self) -> np.ndarray:
        """All 0."""
        return self._nothing
