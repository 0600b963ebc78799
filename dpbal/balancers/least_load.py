"""The rank with the smallest load; its three names differ in their default signal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpbal.balancers.base import BALANCERS
from dpbal.balancers.smallest import Smallest
from dpbal.balancers.smallest import Ties as Ties
from dpbal.core import Request, View
from dpbal.errors import ConfigError
from dpbal.signals.base import Signal, Unit


@BALANCERS.register("minimum_tokens", "fewest_requests", "least_prefill")
@dataclass
class LeastLoad(Smallest):
    """Each request goes to the rank with the smallest load.

    Formula: ``rank = argmin(load + miss_weight * own)``, where ``own`` is what the request itself
    still needs on a rank after its prefix hit there, in the unit of the load. What the load is, is
    the signal's matter, and the names stand for the signal that each is known by:

    * ``minimum_tokens``: tokens held plus tokens in flight. Wins where decode memory decides;
      loses where resident KV is no work, as a rank with one long steady session looks busy.
    * ``fewest_requests``: requests plus requests in flight, the shortest queue. Robust, and good
      where requests are alike; blind to one long prompt.
    * ``least_prefill``: seconds of prefill still to do plus those in flight, and a thousandth of
      the decode seconds to settle ties. The best known placement for time to first token where
      nothing is shared; loses where outputs are long and the decode batch decides.

    With a ``miss_weight`` the rule follows prefix hits as well. At 1 a second of wait weighs as
    much as a second of the request's own prefill, so that ``least_prefill`` has the earliest first
    token; but a miss is work that the whole group pays for in lockstep, and a queue is longer for
    all that come after it, so the number of ranks is nearer to what it costs.

    Args:
        ties: Who gets the request when several ranks are equal.
        miss_weight: What a token or second that the request itself needs counts, against one that
            waits before it; 0 is blind to prefix hits, and all that a signal in requests can have.

    Example:
        >>> import numpy as np
        >>> from types import SimpleNamespace
        >>> view = SimpleNamespace(selectable=np.ones(3, bool), loads=np.array([5.0, 2.0, 2.0]))
        >>> balancer = LeastLoad()
        >>> balancer.start(ranks=3, seed=0)
        >>> [balancer.choose(None, view) for _ in range(3)]
        [1, 2, 1]

    Reference: SGLang PR #7379 (minimum_tokens); join the shortest queue, W. Winston, "Optimality of
    the shortest line discipline", J. Appl. Prob. 1977.

    Raises:
        ValueError: For a negative or infinite weight.
    """

    uses_in_flight = False

    miss_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.miss_weight < math.inf:
            raise ValueError(f"miss_weight must be finite and not negative, got {self.miss_weight}")
        self._is_blind = self.miss_weight == 0

    @property
    def uses_prefixes(self) -> bool:
        """Where it weighs misses."""
        return self.miss_weight > 0

    def check(self, signal: Signal) -> None:
        """Refuse a signal that misses cannot be added to."""
        if self.uses_prefixes and signal.counts is Unit.requests:
            raise ConfigError(
                "balancer.miss_weight weighs a request's own tokens or seconds, and the signal "
                "counts requests; type balancer.miss_weight=0, or signal=prefill_in_flight"
            )

    def start(self, ranks: int, seed: int) -> None:
        """Load the compiled scan, and begin rotation at ``seed % ranks``."""
        super().start(ranks, seed)
        # numba is slow to import, and composing a config needs no scan
        from dpbal.balancers.prefix_scans import lowest_with_misses
        from dpbal.balancers.ties import argmin_from

        self._argmin_from = argmin_from
        self._lowest_with_misses = lowest_with_misses
        self._scores = np.zeros(ranks)

    def _scan(self, request: Request, view: View, start: int) -> int:
        rank: int
        if self._is_blind:
            rank = self._argmin_from(view.loads, view.selectable, start)
            return rank
        own: np.ndarray = view.own_prefill_s
        weight = self.miss_weight
        if view.unit is Unit.tokens:  # less what is cached, as the prompt is the same for all
            own, weight = view.cached_tokens, -self.miss_weight
        rank = self._lowest_with_misses(
            view.loads, own, weight, view.selectable, start, self._scores
        )
        return rank
