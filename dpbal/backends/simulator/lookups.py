"""What indexers may look up in the simulated ranks' caches, compiled."""

from __future__ import annotations

import numpy as np

from dpbal.backends.simulator.kv_cache import is_cached
from dpbal.backends.simulator.views import open_views
from dpbal.jit import njit_making_arrays


@njit_making_arrays
def extend(addresses: np.ndarray, request: int, matched: np.ndarray) -> None:
    """Raise each rank's leading prefix blocks of a request by those that follow in its cache.

    A prefix block is there when the last of its KV blocks is, or where the store of all ranks has
    it.

    Args:
        addresses: The simulation, from ``views.addresses``.
        request: Its row.
        matched: ``int64[ranks]``.
    """
    s = open_views(addresses)
    if not s.spec[0].caching:
        return
    q = s.requests[request]
    ratio = s.spec[0].hash_ratio
    blocks = q.hash_blocks // ratio
    for r in range(s.ranks.size):
        block = matched[r]
        while block < blocks:
            key = s.hashes[q.hash_start + block] * ratio + ratio - 1
            if not (is_cached(s, r, key) or (s.spec[0].shares_store and s.stored[key])):
                break
            block += 1
        matched[r] = block


@njit_making_arrays
def events_by(addresses: np.ndarray, first: int, until_s: float) -> int:
    """How many of the events from row ``first`` on happened by then."""
    s = open_views(addresses)
    row = first
    while row < s.clock[0].events and s.events[row].time_s <= until_s:
        row += 1
    return int(row - first)
