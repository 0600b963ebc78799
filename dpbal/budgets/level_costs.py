"""What steps cost in truth, learnt from how long they took: factors to the profile's constants.

A step is taken to last

    ``f0 (a + A) + max over ranks of (f1 prefill + f2 decodes) + f3 m tokens / N + f4 penalty``,

where all but the factors f is what the profile says of what was done, and the penalty is that of a
mixed step. That is linear in the factors once the slowest rank is known, so recursive least squares
find them: a Kalman filter of the relative error, whose factors hold still.
"""

from __future__ import annotations

import math

import numpy as np

from dpbal.budgets import level_rule
from dpbal.jit import njit_making_arrays

FIXED, PREFILL, DECODE, TOKEN, PENALTY = range(5)
FACTORS = 5

LEARNING = np.dtype(
    [
        ("noise", np.float64),  # mean error of late, as a standard deviation
        ("surprises", np.int64),  # steps in a row that could not be believed
    ]
)
"""What is remembered beside the factors and their covariance."""

MOST = 16.0
"""Factors are from one over this to this."""

DOUBT = 2.0
"""Standard deviation of a factor before the first step."""

ALIKE = 0.5
"""Correlation between factors then: a slower device does everything slower."""

FIRST_NOISE = 0.5
"""Standard deviation of a step's time, as a part of it, before there was a step."""

LEAST_NOISE = 0.05
"""The same where errors show less."""

NOISE_STEPS = 50.0
"""Steps over which errors are averaged for it."""

NEGLIGIBLE = 1e-3
"""A smaller error, as a part of a step, is none: what was done is not known better."""

FORGETTING = 1e-7
"""Part of the first doubt that comes back with every step."""

SURPRISE = 3.0
"""Standard deviations of the error beyond which a step teaches nothing."""

IN_A_ROW = 10
"""So many surprises in a row are no hiccup, but what steps take now."""


def first_state() -> np.ndarray:
    """``LEARNING[1]`` before the first step."""
    return np.array([(FIRST_NOISE, 0)], LEARNING)


def first_doubt() -> np.ndarray:
    """``float64[FACTORS, FACTORS]``, the covariance of the factors before the first step."""
    return DOUBT**2 * (ALIKE + (1.0 - ALIKE) * np.eye(FACTORS))


@njit_making_arrays
def learn(
    vectors: np.ndarray,
    costs: np.ndarray,
    factors: np.ndarray,
    doubt: np.ndarray,
    first: np.ndarray,
    state: np.ndarray,
) -> None:
    """Learn from the step that the vectors say ended last.

    Args:
        vectors: ``VECTOR[ranks]``, one version.
        costs: ``COSTS[1]``, the profile.
        factors: ``float64[FACTORS]``, which the step corrects.
        doubt: ``float64[FACTORS, FACTORS]``, their covariance, which it makes smaller.
        first: The same before the first step.
        state: ``LEARNING[1]``.
    """
    k, ranks = costs[0], vectors.size
    took_s, slowest_s = np.inf, 0.0
    tokens = largest = 0
    prefills = decodes = False
    part_s = np.zeros(FACTORS)
    for r in range(ranks):
        v = vectors[r]
        took_s = min(took_s, v.step_s)  # of who came last, and did not wait for others to come
        tokens += v.done_tokens
        largest = max(largest, v.done_tokens)
        prefills = prefills or v.done_prefill_s > 0
        decodes = decodes or v.done_decode_s > 0
        own_s = factors[PREFILL] * v.done_prefill_s + factors[DECODE] * v.done_decode_s
        if own_s > slowest_s:
            slowest_s = own_s
            part_s[PREFILL], part_s[DECODE] = v.done_prefill_s, v.done_decode_s
    if tokens == 0 or not took_s > 0:
        return
    if k.pad_to_largest:
        tokens = largest * ranks
    part_s[FIXED] = k.fixed_s + k.common_fixed_s
    part_s[TOKEN] = k.common_s_per_token * tokens / ranks
    if prefills and decodes:
        part_s[PENALTY] = k.mixed_penalty_s
    doubt += FORGETTING * (first - doubt)
    part = part_s / took_s
    error = 1.0
    spread = np.zeros(FACTORS)
    variance = max(LEAST_NOISE, state[0].noise) ** 2
    for i in range(FACTORS):
        error -= factors[i] * part[i]
        for j in range(FACTORS):
            spread[i] += doubt[i, j] * part[j]
        variance += part[i] * spread[i]
    if abs(error) < NEGLIGIBLE:
        error = 0.0
    most = SURPRISE * math.sqrt(variance)
    # the mean of the size of a normal error is 0.8 standard deviations
    state[0].noise += (1.25 * min(abs(error), most) - state[0].noise) / NOISE_STEPS
    if abs(error) > most:
        state[0].surprises += 1
        if state[0].surprises == IN_A_ROW:
            doubt[:] = first
            state[0].noise = FIRST_NOISE
        return
    state[0].surprises = 0
    for i in range(FACTORS):
        factors[i] = min(MOST, max(1.0 / MOST, factors[i] + spread[i] / variance * error))
        for j in range(FACTORS):
            doubt[i, j] -= spread[i] * spread[j] / variance


@njit_making_arrays
def in_true_seconds(
    vectors: np.ndarray,
    costs: np.ndarray,
    rule: np.ndarray,
    factors: np.ndarray,
    true_vectors: np.ndarray,
    true_costs: np.ndarray,
    true_rule: np.ndarray,
) -> None:
    """Write what the profile says as what it takes.

    Args:
        vectors: ``VECTOR[ranks]``, one version.
        costs: ``COSTS[1]``, the profile.
        rule: ``RULE[1]``, with the profile's chunk.
        factors: ``float64[FACTORS]``.
        true_vectors: Like ``vectors``, a result, and so are the next two.
        true_costs: Like ``costs``.
        true_rule: Like ``rule``.
    """
    for r in range(vectors.size):
        true_vectors[r] = vectors[r]
        v = true_vectors[r]
        v.decode_s *= factors[DECODE]
        v.prefill_s *= factors[PREFILL]
        v.done_decode_s *= factors[DECODE]
        v.done_prefill_s *= factors[PREFILL]
    k, true = costs[0], true_costs[0]
    true.fixed_s = factors[FIXED] * k.fixed_s
    true.common_fixed_s = factors[FIXED] * k.common_fixed_s
    true.common_s_per_token = factors[TOKEN] * k.common_s_per_token
    true.mixed_penalty_s = factors[PENALTY] * k.mixed_penalty_s
    true_rule[0].chunk_s = factors[PREFILL] * rule[0].chunk_s


@njit_making_arrays
def limit(
    vectors: np.ndarray,
    costs: np.ndarray,
    rule: np.ndarray,
    factors: np.ndarray,
    doubt: np.ndarray,
    first: np.ndarray,
    learning: np.ndarray,
    true_vectors: np.ndarray,
    true_costs: np.ndarray,
    true_rule: np.ndarray,
    state: np.ndarray,
    seconds: np.ndarray,
) -> None:
    """Learn from the step that ended last, and write the profile's seconds for the next.

    Arguments are those of ``learn``, ``in_true_seconds`` and ``level_rule.limit``.
    """
    learn(vectors, costs, factors, doubt, first, learning)
    in_true_seconds(vectors, costs, rule, factors, true_vectors, true_costs, true_rule)
    level_rule.limit(true_vectors, true_costs, true_rule, state, seconds)
    seconds /= factors[PREFILL]
