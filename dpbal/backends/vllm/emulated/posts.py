"""What ranks post at the barrier of a lockstep group, compiled: written once, read by all."""

from __future__ import annotations

import numpy as np

from dpbal.jit import njit
from dpbal.sharedmem import WORD_BYTES
from dpbal.sharedmem.atomics import load_acquire, load_relaxed, store_relaxed, store_release


@njit
def post(slot: int, number: int, words: np.ndarray) -> None:
    """Write the ``words`` of step ``number`` into a slot that nobody reads any more."""
    for k in range(words.size):
        store_relaxed(slot + (1 + k) * WORD_BYTES, words[k])
    store_release(slot, number + 1)


@njit
def gather(first: int, rank_bytes: int, number: int, words: np.ndarray) -> int:
    """Read what each rank wrote for step ``number`` into ``words[ranks, :]``.

    Args:
        first: Address of the step's slot of rank 0.
        rank_bytes: From one rank's slot to the next.
        number: The step.
        words: ``int64[ranks, words]``.

    Returns:
        The first rank that has not written it yet, or the number of ranks.
    """
    for rank in range(words.shape[0]):
        slot = first + rank * rank_bytes
        if load_acquire(slot) != number + 1:
            return rank
        for k in range(words.shape[1]):
            words[rank, k] = load_relaxed(slot + (1 + k) * WORD_BYTES)
    return int(words.shape[0])
