"""The ranks' caches themselves, as only a simulator can show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpbal.core import Request
from dpbal.indexers.base import INDEXERS
from dpbal.indexers.observed import Observed


@INDEXERS.register("oracle")
@dataclass
class Oracle(Observed):
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
        super().start(ranks, capacity_tokens)
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

    @property
    def sizes(self) -> np.ndarray:
        """Prefix blocks in each rank's cache."""
        return self._sizes

    def _extend_cached(self, request: Request, hashes: np.ndarray, matched: np.ndarray) -> None:
        self._extend(request, matched)
