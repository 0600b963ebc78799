"""Any rank, whatever its load."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random as Generator

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.core import Request, View


@BALANCERS.register("random")
@dataclass
class Random(Balancer):
    """Each request goes to a selectable rank drawn at random, all equally likely.

    Wins only where many dispatchers without any report would march in step under round robin.
    Loses to round robin elsewhere: N ranks then see N independent Poisson streams, and queues are
    as long as without any balancing.

    Example:
        >>> import numpy as np
        >>> from types import SimpleNamespace
        >>> view = SimpleNamespace(selectable=np.array([False, True, False]))
        >>> balancer = Random()
        >>> balancer.start(ranks=3, seed=0)
        >>> balancer.choose(None, view)
        1

    Reference: M. Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS
    2001, where it is the case d = 1.
    """

    uses_signal = False
    uses_reports = False

    def __post_init__(self) -> None:
        self._uniform = Generator(0).random

    def start(self, ranks: int, seed: int) -> None:
        """Seed the draws."""
        self._uniform = Generator(seed).random

    def choose(self, request: Request, view: View) -> int:
        """One of the selectable ranks."""
        candidates = view.selectable.nonzero()[0]
        return candidates.item(int(self._uniform() * len(candidates)))
