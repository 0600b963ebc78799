"""Intervals over replicates: paired t, Welch's t, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Estimate:
    """A mean difference, with an interval where there are replicates enough.

    Attributes:
        mean: The difference.
        low: Lower end of the interval, or None.
        high: Upper end of it, or None.
        p: Two-sided probability of a difference at least as large if there is none, or None.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


def paired(
    ours: Sequence[float], theirs: Sequence[float], level: float, rounding: float
) -> Estimate:
    """Mean of ``ours[i] - theirs[i]`` with Student's t interval at ``n - 1`` degrees of freedom.

    Args:
        ours: One value for each replicate.
        theirs: The other side's, of the same replicates.
        level: Of the interval, such as 0.95.
        rounding: Differences and deviations below this are no more than rounded last digits.

    Returns:
        An estimate, without an interval for a single pair.
    """
    differences = [_clean(a - b, rounding) for a, b in zip(ours, theirs, strict=True)]
    count = len(differences)
    if count < 2:
        return Estimate(fmean(differences))
    error = _clean(stdev(differences), rounding) / math.sqrt(count)
    return _interval(fmean(differences), error, count - 1, level)


def welch(
    ours: Sequence[float], theirs: Sequence[float], level: float, rounding: float
) -> Estimate:
    """Difference of means of independent samples with Welch's t interval.

    Degrees of freedom are Satterthwaite's.

    Args:
        ours: One value for each replicate.
        theirs: The other side's, of replicates of its own.
        level: Of the interval, such as 0.95.
        rounding: Differences and deviations below this are no more than rounded last digits.

    Returns:
        An estimate, without an interval where a side has a single value.
    """
    mean = _clean(fmean(ours) - fmean(theirs), rounding)
    if min(len(ours), len(theirs)) < 2:
        return Estimate(mean)
    sides = (ours, theirs)
    variances = [_clean(stdev(side), rounding) ** 2 / len(side) for side in sides]
    total = sum(variances)
    if total == 0:
        return _interval(mean, 0.0, 1, level)
    weights = [part**2 / (len(side) - 1) for part, side in zip(variances, sides, strict=True)]
    return _interval(mean, math.sqrt(total), total**2 / sum(weights), level)


def holm(p: Sequence[float]) -> list[float]:
    """Adjust probabilities for their number (Holm 1979).

    If all below ``a`` are called differences, the chance of any false call is at most ``a``,
    however the probabilities depend on each other.
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted = [1.0] * len(p)
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, p[i] * (len(p) - place)))
        adjusted[i] = largest
    return adjusted


def _interval(mean: float, error: float, freedom: float, level: float) -> Estimate:
    from scipy.special import stdtr, stdtrit

    if error == 0:
        return Estimate(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(mean) / error))
    return Estimate(mean, mean - half, mean + half, p)


def _clean(value: float, rounding: float) -> float:
    return 0.0 if abs(value) < rounding else value
