"""The ranks' caches themselves, as only a simulator can show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpbal.core import Request
from dpbal.indexers.base import INDEXERS, Indexer


@INDEXERS.register("oracle")
@dataclass
class Oracle(Indexer):
    """Looks into the simulated ranks' caches at the moment of the decision.

    What has been sent to a rank by any dispatcher and has not ended counts as cached there. It is
    what every other indexer is measured against.

    Example:
        ``dpbal-run +balancer=marginal_prefill indexer=oracle workload=mooncake_like``
    """

    is_shared: ClassVar[bool] = True
    in_simulator_only: ClassVar[bool] = True

    def start(self, ranks: int, capacity_tokens: int) -> None:
        """Begin with nothing sent anywhere."""
        from dpbal.indexers.outstanding import Outstanding

        self._outstanding = Outstanding(ranks)
        self._matched = np.zeros(ranks, np.int64)
        self._sizes = np.zeros(ranks, np.int64)

    def connect(self, extend: Callable[[Request, np.ndarray], None], sizes: np.ndarray) -> None:
        """Where to look.

        Args:
            extend: Raises ``int64[ranks]``, leading blocks of a request's prompt, by the blocks
                that follow in each rank's cache.
            sizes: ``int64[ranks]``, prefix blocks in each cache, kept up to date.
        """
        self._extend = extend
        self._sizes = sizes

    def match(self, request: Request) -> np.ndarray:
        """Leading blocks that are cached or on their way."""
        matched = self._matched
        matched[:] = 0
        hashes = request.block_hashes
        if hashes is not None and len(hashes) > 0:
            self._outstanding.extend_both(
                lambda _, longer: self._extend(request, longer), hashes, matched
            )
        return matched

    def dispatched(self, request: Request, rank: int, now_s: float) -> None:
        """Its blocks count as cached until it ends."""
        self._outstanding.add(request, rank)

    def finished(self, request_id: int | str) -> None:
        """What it has left in the cache is looked up there."""
        self._outstanding.remove(request_id)

    def forget(self, rank: int) -> None:
        """Nothing that was sent there is on its way any more."""
        self._outstanding.forget(rank)

    def cache_reset(self, rank: int) -> None:
        """It is seen."""

    @property
    def sizes(self) -> np.ndarray:
        """Prefix blocks in each rank's cache."""
        return self._sizes
