"""One time level for all ranks of a lockstep step, compiled: how high it may be raised for prefill.

Everything is in seconds of a rank's own time in a step, without the fixed part that all ranks have.
"""

from __future__ import annotations

import numpy as np

from dpbal.jit import njit, njit_making_arrays
from dpbal.step_time import common_s as _common_s

RULE = np.dtype(
    [
        ("growth", np.float64),
        ("ttft_weight", np.float64),  # infinity for any
        ("ttft_deadline_s", np.float64),  # infinity for none, and so the next
        ("tpot_s", np.float64),
        ("chunk_s", np.float64),  # a full chunk of a fresh prompt
    ]
)
"""What the budget is asked to do."""

STATE = np.dtype(
    [
        ("credit_s", np.float64),  # request-seconds that may still be wasted
        ("prefilling", np.float64),  # ranks at prefill, on average of late
    ]
)
"""What all ranks remember alike, as it follows from the vectors that they have seen."""

MEMORY_S = 60.0
"""Time over which the average of prefilling ranks forgets."""

ROUNDING_S = 1e-12
"""So much waste is not told from none."""

NO_PREFILL = -1.0
"""A level that no rank can prefill below."""

common_s = njit(_common_s)


@njit_making_arrays
def limit(
    vectors: np.ndarray,
    costs: np.ndarray,
    rule: np.ndarray,
    state: np.ndarray,
    seconds: np.ndarray,
) -> None:
    """Write the seconds that each rank may prefill in its next step.

    Args:
        vectors: ``VECTOR[ranks]``, one version.
        costs: ``COSTS[1]``.
        rule: ``RULE[1]``.
        state: ``STATE[1]``, which goes on to the next step.
        seconds: ``float64[ranks]``, the result.
    """
    ranks = vectors.size
    k, asked, s = costs[0], rule[0], state[0]
    decodes = largest = waiting = 0
    wait_s = last_s = done_s = bare_s = steepest = 0.0
    can_s = np.empty(ranks)
    slower = np.zeros(ranks)  # of the common part, a second for each second of a rank's prefill
    for r in range(ranks):
        v = vectors[r]
        decodes += v.decode_seqs
        largest = max(largest, v.decode_seqs)
        waiting += v.prefill_requests
        wait_s += v.wait_s
        last_s = max(last_s, v.step_s)
        done_s += v.done_prefill_s
        bare_s = max(bare_s, v.decode_s)
        can_s[r] = min(v.prefill_s, asked.chunk_s)
        if v.prefill_s > 0:
            slower[r] = k.common_s_per_token / ranks * v.prefill_tokens / v.prefill_s
            steepest = max(steepest, slower[r] * ranks)
    bare_s += k.fixed_s + common_s(
        k.common_fixed_s,
        k.common_s_per_token,
        0.0,
        k.pad_to_largest,
        decodes,
        largest,
        ranks,
        False,
    )
    if last_s > 0:
        s.prefilling += last_s / (MEMORY_S + last_s) * (done_s / last_s - s.prefilling)
    if decodes == 0:
        s.credit_s = 0.0
        seconds[:] = np.inf
        return
    waste_s = np.inf
    only_preempted = waiting > 0 and wait_s == 0.0  # they would wait for ever, and earn nothing
    if asked.ttft_weight < np.inf and not only_preempted:
        earned_s = asked.ttft_weight * waiting * last_s
        s.credit_s = min(s.credit_s + earned_s, asked.ttft_weight * wait_s)
        waste_s = s.credit_s / decodes
    dearer = 1.0
    if k.pad_to_largest:  # who does not prefill is padded to who does
        slower[:] = 0.0
        dearer += steepest
    if asked.tpot_s < np.inf:
        longest_s, room_s = np.inf, (asked.tpot_s - bare_s - k.mixed_penalty_s) / dearer
    else:
        longest_s, room_s = asked.growth * bare_s + k.mixed_penalty_s, np.inf
    level_s, wasted_s = highest(
        vectors["decode_s"],
        can_s,
        slower,
        k.mixed_penalty_s,
        asked.chunk_s,
        waste_s / dearer,
        longest_s,
        room_s,
    )
    s.credit_s = max(0.0, s.credit_s - decodes * dearer * max(0.0, wasted_s))
    if asked.tpot_s == np.inf and s.prefilling < 1:
        for r in range(ranks):
            full_s = bare_s + k.mixed_penalty_s + asked.chunk_s * (1 + slower[r]) * dearer
            v = vectors[r]
            needed_s = full_s * max(1.0, v.prefill_s / asked.chunk_s)
            left_s = asked.ttft_deadline_s - v.oldest_wait_s
            # one that has missed its deadline already gains nothing by haste
            if v.prefill_requests > 0 and 0 < left_s <= needed_s:
                level_s = max(level_s, v.decode_s + can_s[r])
    for r in range(ranks):
        seconds[r] = max(0.0, level_s - vectors[r].decode_s)


@njit_making_arrays
def highest(
    decode_s: np.ndarray,
    can_s: np.ndarray,
    slower: np.ndarray,
    penalty_s: float,
    chunk_s: float,
    waste_s: float,
    longest_raise_s: float,
    room_s: float,
) -> tuple[float, float]:
    """The highest level whose waste can be afforded, and what it wastes.

    Raising the level by x lets every rank whose decodes and prefill reach that high prefill for x
    seconds. A raise that all ranks use costs nothing that an aligned engine would not pay too; a
    raise that k of N ranks use wastes ``(1 - k / N) x``, and the first prefill of a step wastes the
    mixed-step penalty less the share of it that its work is worth.

    Args:
        decode_s: ``float64[ranks]``, what the decodes of each rank take.
        can_s: ``float64[ranks]``, what each rank can prefill in the step.
        slower: ``float64[ranks]``, by how much the common part grows for each second of it.
        penalty_s: What a step takes longer for holding prefill beside decodes.
        chunk_s: Most that a rank prefills in a step; above 0.
        waste_s: Waste that can be afforded, infinity for any.
        longest_raise_s: Most that the level is raised where not all ranks use it.
        room_s: Most that the step may grow at all, the common part included.

    Returns:
        The level and its waste; ``NO_PREFILL`` where not even prefill beside the longest decodes
        can be afforded, or has room with its penalty.
    """
    ranks = decode_s.size
    lowest = decode_s.max()
    share = 1.0 / ranks + penalty_s / (ranks * chunk_s)
    tops = decode_s + can_s
    slope_s = 1.0  # of the step over the level
    work_s = 0.0
    users = 0
    for r in range(ranks):
        work_s += min(can_s[r], lowest - decode_s[r])
        room_s -= slower[r] * min(can_s[r], lowest - decode_s[r])
        if tops[r] > lowest:
            users += 1
            slope_s += slower[r]
    if room_s < 0 and penalty_s > 0:
        return NO_PREFILL, 0.0
    room_s = max(0.0, room_s)
    waste_s += ROUNDING_S
    shared = tops.min() if users == ranks else lowest
    limit_s = max(shared, lowest + longest_raise_s)
    at, waste = lowest, penalty_s - work_s * share
    if waste <= waste_s:
        best, spent = at, waste
    else:
        best, spent = NO_PREFILL, 0.0
    for r in np.argsort(tops)[ranks - users :]:
        raise_s = min(min(tops[r], limit_s) - at, room_s / slope_s)
        if raise_s < 0:
            break
        slope = 1.0 - users * share
        after = waste + slope * raise_s
        if after <= waste_s:
            best, spent = at + raise_s, after
        elif waste <= waste_s and slope > 0:
            best, spent = at + (waste_s - waste) / slope, waste_s
        if at + raise_s < tops[r]:
            break
        at, waste = tops[r], after
        room_s -= raise_s * slope_s
        slope_s -= slower[r]
        users -= 1
    return best, spent
