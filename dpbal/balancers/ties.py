"""The smallest load and who gets it when several ranks are equal, compiled."""

from __future__ import annotations

import numpy as np

from dpbal.jit import njit


@njit
def argmin_from(loads: np.ndarray, selectable: np.ndarray, start: int) -> int:
    """First selectable rank with the smallest load, counting cyclically from ``start``."""
    ranks = loads.size
    best = -1
    smallest = np.inf
    for k in range(ranks):
        rank = start + k
        if rank >= ranks:
            rank -= ranks
        if selectable[rank] and (best < 0 or loads[rank] < smallest):
            best = rank
            smallest = loads[rank]
    return best


@njit
def drawn_argmin(scores: np.ndarray, uniform: float) -> int:
    """A rank with the smallest score; a draw in [0, 1) says which, all equally likely."""
    smallest = np.inf
    count = 0
    for rank in range(scores.size):
        if scores[rank] < smallest:
            smallest = scores[rank]
            count = 1
        elif scores[rank] == smallest:
            count += 1
    left = int(uniform * count)
    for rank in range(scores.size):
        if scores[rank] == smallest:
            if left == 0:
                return rank
            left -= 1
    return -1
