"""The rank with the smallest load; its three names differ in their default signal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.core import Request, View


class Ties(Enum):
    """Who gets a request when several ranks have the smallest load.

    ``rotate``: the first of them after the last choice. ``first``: the lowest number, as SGLang
    does. ``random``: the first of them after a rank drawn at random.
    """

    rotate = "rotate"
    first = "first"
    random = "random"


@BALANCERS.register("minimum_tokens", "fewest_requests", "least_prefill")
@dataclass
class LeastLoad(Balancer):
    """Each request goes to the rank with the smallest load.

    Formula: ``rank = argmin(load)``. What the load is, is the signal's matter, and the names stand
    for the signal that each is known by:

    * ``minimum_tokens``: tokens held plus tokens in flight. Wins where decode memory decides;
      loses where resident KV is no work, as a rank with one long steady session looks busy.
    * ``fewest_requests``: requests plus requests in flight, the shortest queue. Robust, and good
      where requests are alike; blind to one long prompt.
    * ``least_prefill``: seconds of prefill still to do plus those in flight, and a thousandth of
      the decode seconds to settle ties. The best known placement for time to first token; loses
      where outputs are long and the decode batch decides.

    Args:
        ties: Who gets the request when several ranks are equal.

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
    """

    uses_in_flight = False

    ties: Ties = Ties.rotate

    def __post_init__(self) -> None:
        self._start = 0
        self._rotates = self.ties is Ties.rotate
        self._draws = self.ties is Ties.random

    def start(self, ranks: int, seed: int) -> None:
        """Load the compiled scan, and begin rotation at ``seed % ranks``."""
        # numba is slow to import, and composing a config needs no scan
        from dpbal.balancers.ties import argmin_from

        self._argmin_from = argmin_from
        self._uniform = Random(seed).random
        self._start = seed % ranks if self._rotates else 0

    def choose(self, request: Request, view: View) -> int:
        """The selectable rank with the smallest load."""
        selectable = view.selectable
        if self._draws:
            self._start = int(self._uniform() * len(selectable))
        rank = self._scan(view, self._start)
        if self._rotates:
            self._start = (rank + 1) % len(selectable)
        return rank

    def _scan(self, view: View, start: int) -> int:
        """The best selectable rank, the first from ``start`` on if several are."""
        rank: int = self._argmin_from(view.loads, view.selectable, start)
        return rank
