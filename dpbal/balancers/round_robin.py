"""Ranks in turn, whatever their load."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.core import Request, View


@BALANCERS.register("round_robin")
@dataclass
class RoundRobin(Balancer):
    """Each request goes to the rank after the last one.

    Formula: ``rank = next selectable rank after the previous choice``. The first is
    ``seed % ranks``, so dispatchers with seeds of their own start apart.

    Wins where requests are alike and it needs no report at all. Loses as soon as sizes differ: a
    rank with a long prompt gets the next request just the same.

    Example:
        >>> import numpy as np
        >>> from types import SimpleNamespace
        >>> view = SimpleNamespace(selectable=np.array([True, False, True]))
        >>> balancer = RoundRobin()
        >>> balancer.start(ranks=3, seed=0)
        >>> [balancer.choose(None, view) for _ in range(4)]
        [0, 2, 0, 2]

    Reference: the default of SGLang's data-parallel controller.
    """

    uses_signal = False
    uses_reports = False

    def __post_init__(self) -> None:
        self._next = 0

    def start(self, ranks: int, seed: int) -> None:
        """Begin at ``seed % ranks``."""
        self._next = seed % ranks

    def choose(self, request: Request, view: View) -> int:
        """The next selectable rank."""
        selectable = view.selectable
        ranks = len(selectable)
        rank = self._next
        while not selectable[rank]:
            rank = (rank + 1) % ranks
        self._next = (rank + 1) % ranks
        return rank
