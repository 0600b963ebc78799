"""Which ranks' newest reports cover dispatches that the ones before did not, compiled."""

from __future__ import annotations

import numpy as np

from dpbal.core import column
from dpbal.jit import njit

RESTARTED = -1
"""In place of a count: some rank has another epoch than before, and nothing was looked at."""

EPOCH = column("epoch")
VERSION = column("version")


@njit
def acknowledged(
    integers: np.ndarray,
    received_epochs: np.ndarray,
    received: np.ndarray,
    epoch: int,
    seen_epochs: np.ndarray,
    seen: np.ndarray,
    found: np.ndarray,
) -> int:
    """Find the ranks that have received more than was ``seen`` of a dispatcher of this ``epoch``.

    Writes them into ``found``, updates ``seen``, and returns how many there are.
    """
    for rank in range(seen.size):
        if integers[rank, EPOCH] != seen_epochs[rank]:
            return RESTARTED
    count = 0
    for rank in range(seen.size):
        if received[rank] > seen[rank] and received_epochs[rank] == epoch:
            seen[rank] = received[rank]
            found[count] = rank
            count += 1
    return count


@njit
def reported(
    integers: np.ndarray,
    in_flight_requests: np.ndarray,
    seen_epochs: np.ndarray,
    seen: np.ndarray,
    found: np.ndarray,
) -> int:
    """Find the ranks with another report than the version ``seen``, and something in flight.

    Writes them into ``found``, updates ``seen``, and returns how many there are.
    """
    for rank in range(seen.size):
        if integers[rank, EPOCH] != seen_epochs[rank]:
            return RESTARTED
    count = 0
    for rank in range(seen.size):
        if integers[rank, VERSION] != seen[rank]:
            seen[rank] = integers[rank, VERSION]
            if in_flight_requests[rank] > 0:
                found[count] = rank
                count += 1
    return count
