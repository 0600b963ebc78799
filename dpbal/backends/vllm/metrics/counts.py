"""What a front end counts as it dispatches: plain numbers, which somebody else looks at."""

from __future__ import annotations

from bisect import bisect_left
from enum import Enum

DECISION_BOUNDS_S = (
    *(1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4),
    *(1e-3, 2e-3, 5e-3, 1e-2),
)
"""Upper bounds of the buckets of decision times."""

AGE_BOUNDS_S = (1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
"""Likewise of the ages of reports that decisions went by."""


class Ending(Enum):
    """How a request ended, as its front end knows it."""

    finished = "finished"
    aborted = "aborted"
    error = "error"
    not_sent = "not_sent"


class Distribution:
    """How many numbers fell between which bounds.

    Args:
        bounds: Upper ones, in ascending order.

    Attributes:
        counts: How many fell up to each bound and above the one before, and above the last.
        total: The sum of all.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a number."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counts:
    """What has happened since a front end started.

    Args:
        ranks: Among which it chooses.

    Attributes:
        choices: Requests that the balancer sent to each rank.
        pins: Requests that their clients sent there.
        cached_tokens: Prompt tokens that were expected in each rank's prefix cache.
        decisions_s: How long choices took.
        ages_s: How old the report of the chosen rank was.
        endings: Requests by how they ended.
    """

    def __init__(self, ranks: int) -> None:
        self.choices = [0] * ranks
        self.pins = [0] * ranks
        self.cached_tokens = [0] * ranks
        self.decisions_s = Distribution(DECISION_BOUNDS_S)
        self.ages_s = Distribution(AGE_BOUNDS_S)
        self.endings = dict.fromkeys(Ending, 0)

    def dispatched(self, rank: int, is_pinned: bool, cached_tokens: int, took_s: float) -> None:
        """A request has been given a rank.

        Args:
            rank: Which.
            is_pinned: Whether its client demanded it.
            cached_tokens: Tokens of its prompt that are expected to be cached there.
            took_s: How long that took.
        """
        if is_pinned:
            self.pins[rank] += 1
        else:
            self.choices[rank] += 1
        if cached_tokens:
            self.cached_tokens[rank] += cached_tokens
        self.decisions_s.add(took_s)
