"""Finds where an attainment that falls with load crosses a threshold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

RISE = 0.01
"""Attainment higher by more than this at a higher load is no noise of a falling one."""


class Verdict(Enum):
    """Where the crossing is."""

    found = "found"
    above_high = "above high"
    below_low = "below low"


@dataclass(frozen=True)
class Crossing:
    """Where attainment falls below a threshold.

    Attributes:
        verdict: Whether that is between the two ends.
        load: The highest load visited that attains it; None unless found.
        points: Loads visited and what each attained, in order of load.
    """

    verdict: Verdict
    load: float | None
    points: list[tuple[float, float]]

    @property
    def rises(self) -> list[tuple[float, float]]:
        """Pairs of neighbouring loads of which the higher attains clearly more."""
        neighbours = zip(self.points, self.points[1:], strict=False)
        return [(a, b) for (a, one), (b, other) in neighbours if other > one + RISE]


def cross(
    attained: Callable[[float], float], threshold: float, low: float, high: float, tolerance: float
) -> Crossing:
    """Bisect for the highest load at which ``attained(load) >= threshold``.

    The loads visited depend on the outcomes alone, so that searches that agree meet at the same.

    Args:
        attained: Falls with load.
        threshold: To attain.
        low: Lower end, above 0.
        high: Upper end.
        tolerance: Stop when the ends are no further apart.
    """
    visited: dict[float, float] = {}

    def meets(load: float) -> bool:
        visited[load] = attained(load)
        return visited[load] >= threshold

    def ended(verdict: Verdict, load: float | None = None) -> Crossing:
        return Crossing(verdict, load, sorted(visited.items()))

    if not meets(low):
        return ended(Verdict.below_low)
    if meets(high):
        return ended(Verdict.above_high)
    for _ in range(halvings(low, high, tolerance)):
        middle = (low + high) / 2
        if meets(middle):
            low = middle
        else:
            high = middle
    return ended(Verdict.found, low)


def halvings(low: float, high: float, tolerance: float) -> int:
    """How often an interval is halved until it is no longer than ``tolerance``."""
    return max(0, math.ceil(math.log2((high - low) / tolerance) - 1e-9))
