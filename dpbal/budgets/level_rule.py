"""One time level for all ranks of a lockstep step, compiled: how high it may be raised for prefill.

Everything is in seconds of a rank's own time in a step, without the fixed part that all ranks have.
"""

from __future__ import annotations

import numpy as np

from dpbal.jit import njit_making_arrays


@njit_making_arrays
def level(
    decode_s: np.ndarray,
    prefill_s: np.ndarray,
    chunk_s: float,
    penalty_s: float,
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
        prefill_s: ``float64[ranks]``, what each rank could prefill.
        chunk_s: Most that a rank prefills in a step.
        penalty_s: What a step takes longer for holding prefill beside decodes.
        waste_s: Waste that can be afforded, infinity for any.
        longest_raise_s: Most that the level is raised where not all ranks use it.
        room_s: Most that the level is raised at all.

    Returns:
        The level and its waste; a level of -1 where not even prefill beside the longest decodes
        can be afforded.
    """
    ranks = decode_s.size
    lowest = decode_s.max()
    share = 1.0 / ranks + (penalty_s / (ranks * chunk_s) if chunk_s > 0 else 0.0)
    tops = np.empty(ranks)
    work_s = 0.0
    above = 0
    shared = np.inf
    for r in range(ranks):
        can_s = min(prefill_s[r], chunk_s)
        work_s += min(can_s, lowest - decode_s[r])
        top = decode_s[r] + can_s
        shared = min(shared, top)
        if top > lowest:
            tops[above] = top
            above += 1
    tops = np.sort(tops[:above])
    if above < ranks:
        shared = lowest
    highest = min(max(shared, lowest + longest_raise_s), lowest + room_s)
    at = lowest
    waste = penalty_s - work_s * share
    if waste <= waste_s:
        best, spent = at, waste
    else:
        best, spent = -1.0, 0.0
    users = above
    for top in tops:
        raise_s = min(top, highest) - at
        if raise_s < 0:
            break
        slope = 1.0 - users * share
        after = waste + slope * raise_s
        if after <= waste_s:
            best, spent = at + raise_s, after
        elif waste <= waste_s and slope > 0:
            best, spent = at + (waste_s - waste) / slope, waste_s
        if at + raise_s < top:
            break
        at, waste = top, after
        users -= 1
    return best, spent
