"""Scans that weigh prefix hits against load and draw among the best ranks, compiled."""

from __future__ import annotations

import numpy as np

from dpbal.balancers.scans import requests_at
from dpbal.balancers.ties import drawn_argmin
from dpbal.core import column
from dpbal.jit import njit

KV_USED = column("kv_used_tokens")
PREFILL_TOKENS = column("prefill_tokens")


@njit
def write_dynamo_costs(
    integers: np.ndarray,
    in_flight_requests: np.ndarray,
    in_flight_tokens: np.ndarray,
    in_flight_prefill_tokens: np.ndarray,
    cached_tokens: np.ndarray,
    prompt_tokens: int,
    block_tokens: int,
    selectable: np.ndarray,
    prefill_load_scale: float,
    overlap_credit: float,
    request_weight: float,
    costs: np.ndarray,
) -> None:
    """Write the cost of each rank in ``Dynamo``, in blocks; infinite where it cannot be chosen."""
    for rank in range(selectable.size):
        if not selectable[rank]:
            costs[rank] = np.inf
            continue
        queued = integers[rank, PREFILL_TOKENS] + in_flight_prefill_tokens[rank]
        prefill = max(0.0, queued + prompt_tokens - overlap_credit * cached_tokens[rank])
        resident = integers[rank, KV_USED] + in_flight_tokens[rank]
        requests = requests_at(integers, in_flight_requests, rank)
        blocks = prefill_load_scale * prefill + resident
        costs[rank] = blocks / block_tokens + request_weight * requests


@njit
def drawn_softmin(costs: np.ndarray, temperature: float, uniform: float) -> int:
    """A rank with probability ``exp(-(cost - min) / ((max - min) * temperature))``, normalised.

    Args:
        costs: ``float64[ranks]``, infinite for ranks that are out of the choice.
        temperature: Above 0.
        uniform: A draw in [0, 1) that says which.
    """
    smallest = np.inf
    largest = -np.inf
    for rank in range(costs.size):
        if costs[rank] < np.inf:
            smallest = min(smallest, costs[rank])
            largest = max(largest, costs[rank])
    scale = (largest - smallest) * temperature
    if scale <= 0:
        return int(drawn_argmin(costs, uniform))
    total = 0.0
    for rank in range(costs.size):
        total += np.exp((smallest - costs[rank]) / scale)
    left = uniform * total
    last = -1
    for rank in range(costs.size):
        weight = np.exp((smallest - costs[rank]) / scale)
        if weight > 0:
            last = rank
            if left < weight:
                break
            left -= weight
    return last


@njit
def llm_d_rank(
    integers: np.ndarray,
    in_flight_prefill_tokens: np.ndarray,
    cached_tokens: np.ndarray,
    prompt_tokens: int,
    selectable: np.ndarray,
    least_cached: float,
    max_penalty_tokens: float,
    full_tokens: float,
    scores: np.ndarray,
    uniform: float,
) -> int:
    """Rank of ``LlmD``: of those that hold enough of the prompt, or else of all, the least load."""
    sticky = np.inf
    others = np.inf
    for rank in range(selectable.size):
        if not selectable[rank]:
            continue
        tokens = float(integers[rank, PREFILL_TOKENS] + in_flight_prefill_tokens[rank])
        if cached_tokens[rank] >= least_cached:
            sticky = min(sticky, tokens)
        else:
            others = min(others, tokens)
    sticks = sticky < np.inf and not sticky - others > max_penalty_tokens
    for rank in range(selectable.size):
        scores[rank] = np.inf
        if selectable[rank] and (not sticks or cached_tokens[rank] >= least_cached):
            tokens = float(integers[rank, PREFILL_TOKENS] + in_flight_prefill_tokens[rank])
            scores[rank] = min(tokens + prompt_tokens - cached_tokens[rank], full_tokens)
    return int(drawn_argmin(scores, uniform))


@njit
def tensorrt_llm_rank(
    loads: np.ndarray,
    integers: np.ndarray,
    in_flight_requests: np.ndarray,
    cached_tokens: np.ndarray,
    prompt_tokens: int,
    selectable: np.ndarray,
    load_weight: float,
    match_threshold: float,
    fair_share: float,
    scores: np.ndarray,
    uniform: float,
) -> int:
    """Rank of ``TensorrtLlm``: the least uncached and relative load below a cap on requests."""
    ranks = 0
    total = 0
    most = 0
    for rank in range(selectable.size):
        if selectable[rank]:
            requests = requests_at(integers, in_flight_requests, rank)
            ranks += 1
            total += requests
            most = max(most, requests)
    cap = max(np.ceil(fair_share * ((total + ranks) // ranks)), float(most))
    load = 0.0
    longest = 0
    for rank in range(selectable.size):
        requests = requests_at(integers, in_flight_requests, rank)
        scores[rank] = 0.0 if selectable[rank] and requests < cap else np.inf
        if scores[rank] == 0:
            load += loads[rank]
            longest = max(longest, cached_tokens[rank])
    follows_hits = longest > match_threshold * prompt_tokens
    share = load_weight * prompt_tokens / max(load, float(prompt_tokens))
    smallest = np.inf
    least = np.inf
    for rank in range(selectable.size):
        if scores[rank] == 0:
            cached = cached_tokens[rank] if follows_hits else 0
            scores[rank] = prompt_tokens - cached + share * loads[rank]
            if scores[rank] < smallest or (scores[rank] == smallest and loads[rank] < least):
                smallest = scores[rank]
                least = loads[rank]
    for rank in range(selectable.size):  # equal scores go to the least load
        if loads[rank] > least:
            scores[rank] = np.inf if scores[rank] == smallest else scores[rank]
    return int(drawn_argmin(scores, uniform))
