"""The rank that holds most of the prompt, unless requests are spread too unevenly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from dpbal.balancers.base import BALANCERS
from dpbal.balancers.smallest import Smallest, Ties
from dpbal.core import Request, View


class OnMiss(Enum):
    """Where a request goes that no rank holds enough of.

    ``fewest_requests``: where the fewest are outstanding. ``smallest_index``: where the fewest
    prefix blocks are believed to be cached, and of several the fewest requests outstanding.
    """

    fewest_requests = "fewest_requests"
    smallest_index = "smallest_index"


@BALANCERS.register("cache_aware")
@dataclass
class CacheAware(Smallest):
    """Each request follows its longest prefix hit, unless the ranks' requests differ too much.

    Formula, with ``n_r`` the requests of this dispatcher that are outstanding at rank r, ``m_r``
    the tokens of the prompt that it holds, and L those of the prompt::

        argmin n_r    if max n - min n > balance_abs and max n > balance_rel * min n
        argmax m_r    else, if max m > cache_threshold * L
        argmin n_r    else; with on_miss=smallest_index, the fewest cached blocks

    It reads no report: what it knows of load is what it has sent itself.

    Wins where conversations are many and alike: nearly every hit is kept. Loses where sizes differ,
    as a long queue of few requests is none to it, and where one prefix is hot, as the thresholds
    leave up to ``balance_abs`` requests with its holder.

    Not reproduced: the router matches characters, not blocks of tokens, and gives a prefix that
    several ranks hold to the one that had it last; here they are settled by ``ties``.

    Args:
        ties: Who gets the request when several ranks are equal; the router takes the first.
        cache_threshold: Share of the prompt above which a hit is followed, 0 to 1.
        balance_abs: Requests by which ranks may differ.
        balance_rel: Multiple of the fewest that the most may be.
        on_miss: ``fewest_requests``, as sgl-model-gateway 0.3 has it, or ``smallest_index``, as
            older routers had it.

    Example:
        ``dpbal-run preset=sglang_router workload=mooncake_like``

    Reference: SGLang's sgl-model-gateway, ``policies/cache_aware.rs``, with the defaults of its
    command line; vllm-router has the same rule.

    Raises:
        ValueError: For a threshold outside [0, 1], or a negative or infinite limit.
    """

    uses_signal = False
    uses_reports = False

    ties: Ties = Ties.first
    cache_threshold: float = 0.3
    balance_abs: int = 64
    balance_rel: float = 1.5
    on_miss: OnMiss = OnMiss.fewest_requests

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.cache_threshold <= 1:
            raise ValueError(f"cache_threshold must be from 0 to 1, got {self.cache_threshold}")
        for name in ("balance_abs", "balance_rel"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {value}")

    @property
    def uses_prefixes(self) -> bool:
        """What ranks hold decides."""
        return True

    def start(self, ranks: int, seed: int) -> None:
        """Load the compiled scan, and begin rotation at ``seed % ranks``."""
        super().start(ranks, seed)
        # numba is slow to import, and composing a config needs no scan
        from dpbal.balancers.prefix_scans import cache_aware_rank

        self._cache_aware_rank = cache_aware_rank

    def _scan(self, request: Request, view: View, start: int) -> int:
        rank: int = self._cache_aware_rank(
            view.outstanding,
            view.cached_tokens,
            view.cached_blocks,
            view.selectable,
            start,
            self.cache_threshold * request.prompt_tokens,
            self.balance_abs,
            self.balance_rel,
            self.on_miss is OnMiss.smallest_index,
        )
        return rank
