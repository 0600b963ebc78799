"""Scans over the ranks that need more than one number of each, compiled."""

from __future__ import annotations

import numpy as np

from dpbal.balancers.ties import argmin_from
from dpbal.core import column
from dpbal.jit import njit

RUNNING = column("running")
WAITING = column("waiting")
KV_USED = column("kv_used_tokens")
KV_CAPACITY = column("kv_capacity_tokens")


@njit
def requests_at(integers: np.ndarray, in_flight_requests: np.ndarray, rank: int) -> int:
    """Requests of a rank, waiting, running and in flight."""
    return int(integers[rank, RUNNING] + integers[rank, WAITING] + in_flight_requests[rank])


@njit
def lower_of_two(
    loads: np.ndarray, selectable: np.ndarray, first_draw: float, second_draw: float
) -> int:
    """The lower in load of two different selectable ranks; draws in [0, 1) say which two."""
    count = 0
    for rank in range(loads.size):
        count += selectable[rank]
    i = int(first_draw * count)
    j = int(second_draw * (count - 1))
    if j >= i:
        j += 1
    first = 0
    second = -1
    for rank in range(loads.size):
        if selectable[rank]:
            if i == 0:
                first = rank
            if j == 0:
                second = rank
            i -= 1
            j -= 1
    if second >= 0 and loads[second] < loads[first]:
        return second
    return first


@njit
def lowest_then_fewest(
    loads: np.ndarray,
    integers: np.ndarray,
    in_flight_requests: np.ndarray,
    selectable: np.ndarray,
    start: int,
) -> int:
    """First selectable rank, cyclically from ``start``, with the smallest load, then requests."""
    ranks = loads.size
    best = -1
    smallest = np.inf
    fewest = 0
    for k in range(ranks):
        rank = start + k
        if rank >= ranks:
            rank -= ranks
        if not selectable[rank] or (best >= 0 and loads[rank] > smallest):
            continue
        requests = requests_at(integers, in_flight_requests, rank)
        if best < 0 or loads[rank] < smallest or requests < fewest:
            best = rank
            smallest = loads[rank]
            fewest = requests
    return best


@njit
def lowest_vllm_score(
    integers: np.ndarray,
    in_flight_requests: np.ndarray,
    outstanding: np.ndarray,
    selectable: np.ndarray,
    start: int,
    dispatchers: int,
    kv_weight: float,
    kv_threshold: float,
    scores: np.ndarray,
) -> int:
    """First selectable rank, cyclically from ``start``, with the smallest score of ``Vllm``."""
    for rank in range(scores.size):
        waiting = integers[rank, WAITING] + dispatchers * in_flight_requests[rank]
        score = float(max(dispatchers * outstanding[rank], waiting + integers[rank, RUNNING]))
        capacity = integers[rank, KV_CAPACITY]
        if waiting > 0 and capacity > 0:
            used = integers[rank, KV_USED] / capacity
            score += kv_weight * waiting * max(0.0, used - kv_threshold)
        scores[rank] = score
    return int(argmin_from(scores, selectable, start))


@njit
def first_with_room(
    owners: np.ndarray,
    start: int,
    outstanding: np.ndarray,
    selectable: np.ndarray,
    is_bounded: bool,
    max_load: float,
) -> int:
    """Owner of the first place of a ring, from ``start`` on, that can be chosen and has room."""
    ranks = 0
    total = 0
    for rank in range(selectable.size):
        if selectable[rank]:
            ranks += 1
            total += outstanding[rank]
    room = np.ceil(max_load * (total + 1) / ranks)
    for k in range(owners.size):
        place = start + k
        if place >= owners.size:
            place -= owners.size
        rank = owners[place]
        if selectable[rank] and (not is_bounded or outstanding[rank] < room):
            return int(rank)
    return -1
