"""The rank with the fewest tokens, and of several the one with the fewest requests."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.balancers.base import BALANCERS
from dpbal.balancers.smallest import Smallest
from dpbal.core import Request, View


@BALANCERS.register("total_tokens")
@dataclass
class TotalTokens(Smallest):
    """Each request goes to the rank with the smallest load, then the fewest requests.

    Formula: ``rank = argmin (load, running + waiting + in flight)``, compared in that order.

    Wins over a count of requests where contexts differ a lot and memory is short. Loses where
    resident KV is no work, and, under SGLang's own ledger (``overwrite``), after every report that
    does not cover the latest dispatches yet: the burst that follows lands on one rank.

    Args:
        ties: Who gets the request when both numbers are equal: ``rotate``, ``first`` or ``random``;
            SGLang has ``first``.

    Example:
        ``dpbal-run balancer=total_tokens balancer.ties=first ledger.mode=overwrite``

    Reference: SGLang 0.5.23, ``managers/data_parallel_controller.py``, ``TOTAL_TOKENS``.
    """

    def start(self, ranks: int, seed: int) -> None:
        """Load the compiled scan, and begin rotation at ``seed % ranks``."""
        super().start(ranks, seed)
        # numba is slow to import, and composing a config needs no scan
        from dpbal.balancers.scans import lowest_then_fewest

        self._lowest_then_fewest = lowest_then_fewest

    def _scan(self, request: Request, view: View, start: int) -> int:
        rank: int = self._lowest_then_fewest(
            view.loads, view.integers, view.in_flight.requests, view.selectable, start
        )
        return rank
