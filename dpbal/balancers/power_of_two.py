"""The lower of two random ranks."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random as Generator

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.core import Request, View


@BALANCERS.register("power_of_two")
@dataclass
class PowerOfTwo(Balancer):
    """Each request goes to the lower in load of two different ranks drawn at random.

    Formula: ``rank = argmin(load[i], load[j])`` for random selectable ``i != j``.

    Wins with many dispatchers on stale reports, where everyone's argmin is the same rank and a
    full scan herds; two draws already remove most of the queueing of ``random``. Loses to the full
    scan when reports are fresh or what is in flight is known, as the best rank is mostly not drawn.

    Example:
        >>> import numpy as np
        >>> from types import SimpleNamespace
        >>> view = SimpleNamespace(selectable=np.array([True, True]), loads=np.array([7.0, 3.0]))
        >>> balancer = PowerOfTwo()
        >>> balancer.start(ranks=2, seed=0)
        >>> balancer.choose(None, view)
        1

    Reference: M. Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS
    2001; the routers of vLLM, SGLang and Ray Serve.
    """

    uses_in_flight = False

    def start(self, ranks: int, seed: int) -> None:
        """Seed the draws and load the compiled scan."""
        from dpbal.balancers.scans import lower_of_two

        self._lower_of_two = lower_of_two
        self._uniform = Generator(seed).random

    def choose(self, request: Request, view: View) -> int:
        """The lower of two; the first drawn, thus either, when they are equal."""
        uniform = self._uniform
        rank: int = self._lower_of_two(view.loads, view.selectable, uniform(), uniform())
        return rank
