"""Scans that weigh prefix hits against load and take the best rank, compiled."""

from __future__ import annotations

import numpy as np

from dpbal.balancers.scans import requests_at
from dpbal.balancers.ties import argmin_from
from dpbal.core import column
from dpbal.jit import njit

PREFILL_TOKENS = column("prefill_tokens")


@njit
def lowest_marginal_prefill(
    loads: np.ndarray,
    own_prefill_s: np.ndarray,
    selectable: np.ndarray,
    start: int,
    miss_share: float,
    queue_share: float,
    scores: np.ndarray,
    found: np.ndarray,
) -> int:
    """First selectable rank, cyclically from ``start``, with the least score of its balancer.

    Writes into ``found`` the rank where the request is done soonest, how much longer it takes on
    the other, and what it saves there.
    """
    ranks = loads.size
    longest = -np.inf
    soonest = -1
    for rank in range(ranks):
        if not selectable[rank]:
            continue
        longest = max(longest, loads[rank])
        if soonest < 0:
            soonest = rank
        done = loads[rank] + own_prefill_s[rank]
        least = loads[soonest] + own_prefill_s[soonest]
        if done < least or (done == least and own_prefill_s[rank] < own_prefill_s[soonest]):
            soonest = rank
    for rank in range(ranks):
        own = own_prefill_s[rank]
        above = max(0.0, loads[rank] + own - longest)
        scores[rank] = above + miss_share * own + queue_share * loads[rank]
    best = int(argmin_from(scores, selectable, start))
    found[0] = soonest
    done = loads[best] + own_prefill_s[best]
    found[1] = done - (loads[soonest] + own_prefill_s[soonest])
    found[2] = own_prefill_s[soonest] - own_prefill_s[best]
    return best


@njit
def cache_aware_rank(
    outstanding: np.ndarray,
    cached_tokens: np.ndarray,
    cached_blocks: np.ndarray,
    selectable: np.ndarray,
    start: int,
    least_cached: float,
    balance_abs: float,
    balance_rel: float,
    misses_fill: bool,
) -> int:
    """Rank of ``CacheAware``: the fewest requests, the longest match or the smallest index."""
    most = -1
    fewest = -1
    longest = -1
    emptiest = -1
    for k in range(selectable.size):
        rank = start + k
        if rank >= selectable.size:
            rank -= selectable.size
        if not selectable[rank]:
            continue
        if most < 0 or outstanding[rank] > outstanding[most]:
            most = rank
        if fewest < 0 or outstanding[rank] < outstanding[fewest]:
            fewest = rank
        if longest < 0 or cached_tokens[rank] > cached_tokens[longest]:
            longest = rank
        less = 0 if emptiest < 0 else cached_blocks[rank] - cached_blocks[emptiest]
        if emptiest < 0 or less < 0 or (less == 0 and outstanding[rank] < outstanding[emptiest]):
            emptiest = rank
    above = outstanding[most] - outstanding[fewest]
    if above > balance_abs and outstanding[most] > balance_rel * outstanding[fewest]:
        return fewest
    if cached_tokens[longest] > least_cached:
        return longest
    return emptiest if misses_fill else fewest


@njit
def lowest_product(
    integers: np.ndarray,
    in_flight_requests: np.ndarray,
    in_flight_prefill_tokens: np.ndarray,
    cached_tokens: np.ndarray,
    prompt_tokens: int,
    selectable: np.ndarray,
    start: int,
    scores: np.ndarray,
) -> int:
    """First selectable rank, cyclically from ``start``, with the smallest score of ``LMetric``."""
    for rank in range(scores.size):
        queued = integers[rank, PREFILL_TOKENS] + in_flight_prefill_tokens[rank]
        requests = requests_at(integers, in_flight_requests, rank)
        tokens = float(queued + prompt_tokens - cached_tokens[rank])
        scores[rank] = tokens * float(requests + 1)
    return int(argmin_from(scores, selectable, start))


@njit
def lowest_with_misses(
    loads: np.ndarray,
    own: np.ndarray,
    weight: float,
    selectable: np.ndarray,
    start: int,
    scores: np.ndarray,
) -> int:
    """First selectable rank, cyclically from ``start``, with the least ``loads + weight * own``."""
    for rank in range(scores.size):
        scores[rank] = loads[rank] + weight * own[rank]
    return int(argmin_from(scores, selectable, start))
