"""The rank with the fewest tokens, and of several the one with the fewest requests."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.balancers.least_load import Ties
from dpbal.core import Request, View


@BALANCERS.register("total_tokens")
@dataclass
class TotalTokens(Balancer):
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

    ties: Ties = Ties.rotate

    def __post_init__(self) -> None:
        self._start = 0
        self._rotates = self.ties is Ties.rotate
        self._draws = self.ties is Ties.random

    def start(self, ranks: int, seed: int) -> None:
        """Load the compiled scan, and begin rotation at ``seed % ranks``."""
        from dpbal.balancers.scans import lowest_then_fewest

        self._lowest_then_fewest = lowest_then_fewest
        self._uniform = Random(seed).random
        self._start = seed % ranks if self._rotates else 0

    def choose(self, request: Request, view: View) -> int:
        """The selectable rank with the smallest load, then the fewest requests."""
        selectable = view.selectable
        if self._draws:
            self._start = int(self._uniform() * len(selectable))
        rank: int = self._lowest_then_fewest(
            view.loads, view.integers, view.in_flight.requests, selectable, self._start
        )
        if self._rotates:
            self._start = (rank + 1) % len(selectable)
        return rank
