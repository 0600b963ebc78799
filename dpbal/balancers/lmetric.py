"""The rank with the smallest product of prefill to do and requests to share it with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.balancers.base import BALANCERS
from dpbal.balancers.smallest import Smallest
from dpbal.core import Request, View


@BALANCERS.register("lmetric")
@dataclass
class LMetric(Smallest):
    """Each request goes where the prefill it would wait for, times the requests there, is least.

    Formula, with P the tokens to prefill and n the requests of a rank, reported and in flight, L
    the tokens of the prompt and m those of it that the rank holds::

        score = (P + L - m) * (n + 1)

    Both factors are what a router counts anyway, and there is nothing to tune. The signal plays no
    part.

    Wins where ranks step alone: it sends short requests to one rank and long ones to another, which
    is good for the mean, and it copies a hot prefix by itself. Loses in lockstep, where everyone
    waits for the rank with the long ones, and at the tail.

    Args:
        ties: Who gets the request when several ranks are equal; the paper does not say.

    Example:
        ``dpbal-run +balancer=lmetric group.kind=independent workload=mooncake_like``

    Reference: LMetric (arXiv 2603.15202), as Dynamo's option of that name has it, in tokens.
    """

    uses_signal = False

    @property
    def uses_prefixes(self) -> bool:
        """What ranks hold is one term of it."""
        return True

    def start(self, ranks: int, seed: int) -> None:
        """Load the compiled scan, and begin rotation at ``seed % ranks``."""
        super().start(ranks, seed)
        # numba is slow to import, and composing a config needs no scan
        from dpbal.balancers.prefix_scans import lowest_product

        self._lowest_product = lowest_product
        self._scores = np.zeros(ranks)

    def _scan(self, request: Request, view: View, start: int) -> int:
        in_flight = view.in_flight
        rank: int = self._lowest_product(
            view.integers,
            in_flight.requests,
            in_flight.prefill_tokens,
            view.cached_tokens,
            request.prompt_tokens,
            view.selectable,
            start,
            self._scores,
        )
        return rank
