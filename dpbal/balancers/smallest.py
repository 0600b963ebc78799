"""The rank with the smallest of some number, and who gets a request when several are equal."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum
from random import Random

from dpbal.balancers.base import Balancer
from dpbal.core import Request, View


class Ties(Enum):
    """Who gets a request when several ranks have the smallest number.

    ``rotate``: the first of them after the last choice. ``first``: the lowest number, as SGLang
    does. ``random``: the first of them after a rank drawn at random.
    """

    rotate = "rotate"
    first = "first"
    random = "random"


@dataclass
class Smallest(Balancer):
    """A rule that takes the rank with the smallest of some number; its scan says of which.

    Args:
        ties: Who gets the request when several ranks are equal.
    """

    ties: Ties = Ties.rotate

    def __post_init__(self) -> None:
        self._start = 0
        self._rotates = self.ties is Ties.rotate
        self._draws = self.ties is Ties.random

    def start(self, ranks: int, seed: int) -> None:
        """Begin rotation at ``seed % ranks``, or seed the draws."""
        self._uniform = Random(seed).random
        self._start = seed % ranks if self._rotates else 0

    def choose(self, request: Request, view: View) -> int:
        """The selectable rank with the smallest number."""
        ranks = len(view.selectable)
        if self._draws:
            self._start = int(self._uniform() * ranks)
        rank = self._scan(request, view, self._start)
        if self._rotates:
            self._start = (rank + 1) % ranks
        return rank

    @abstractmethod
    def _scan(self, request: Request, view: View, start: int) -> int:
        """The best selectable rank, the first from ``start`` on if several are."""
