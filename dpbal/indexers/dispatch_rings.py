"""Rings of dispatches in shared memory, compiled: one writer each, and nobody waits for anybody.

A ring is a stream of words, of which the last so many are kept. Its writer says first up to where
it is going to write, then writes, then says up to where it has written. A reader copies what is new
and then looks whether the writer may have come round to it; if so the copy is worth nothing. The
orders and fences are those of a seqlock. A writer that is killed in mid-write has not said that it
has written.

Reference: H.-J. Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?", 2012.
"""

from __future__ import annotations

import numpy as np

from dpbal.jit import njit
from dpbal.sharedmem import LINE_BYTES, WORD_BYTES
from dpbal.sharedmem.atomics import (
    fence_acquire,
    fence_release,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
)

RING_WORDS = 2**17
"""Words of a ring that are kept, a MiB; a power of two."""

RING_BYTES = LINE_BYTES + RING_WORDS * WORD_BYTES
"""From one ring to the next."""

BEGUN = WORD_BYTES
"""From the start of a ring to the word that says up to where its writer may have written. The first
says up to where it has."""

RECORD_WORDS = 3
"""Words before the hashes of a dispatch: how many hashes, the rank, tokens of a block."""

MOST_HASHES = RING_WORDS // 4
"""Hashes of a dispatch beyond so many are left out."""

OVERRUN = -1


@njit
def write(ring: int, hashes: np.ndarray, count: int, rank: int, block_tokens: int) -> int:
    """Add a dispatch, and return where the stream ends now. One writer at a time."""
    start = load_relaxed(ring)
    end = start + RECORD_WORDS + count
    # a writer that was killed may have written further than it has said
    store_relaxed(ring + BEGUN, max(end, load_relaxed(ring + BEGUN)))
    fence_release()
    _put(ring, start, count)
    _put(ring, start + 1, rank)
    _put(ring, start + 2, block_tokens)
    for block in range(count):
        _put(ring, start + RECORD_WORDS + block, hashes[block])
    store_release(ring, end)
    return end


@njit
def find_news(rings: int, seen: np.ndarray, first: int) -> int:
    """The first ring, from ``first`` on, with more than was seen of it, or how many there are."""
    for ring in range(first, seen.size):
        if load_relaxed(rings + ring * RING_BYTES) != seen[ring]:
            return ring
    return int(seen.size)


@njit
def read(ring: int, seen: np.ndarray, number: int, words: np.ndarray) -> int:
    """Copy what is new in a ring, and count it as seen.

    Args:
        ring: Its address.
        seen: ``int64[rings]``, up to where each was seen.
        number: Of the ring.
        words: ``int64[RING_WORDS]``, to copy into.

    Returns:
        How many words, or ``OVERRUN`` where some are lost, and with them the others.
    """
    start, end = seen[number], load_acquire(ring)
    seen[number] = end
    if end - start > RING_WORDS or end < start:
        return OVERRUN
    for position in range(start, end):
        place = ring + LINE_BYTES + (position & (RING_WORDS - 1)) * WORD_BYTES
        words[position - start] = load_relaxed(place)
    fence_acquire()
    if load_relaxed(ring + BEGUN) - start > RING_WORDS:
        return OVERRUN
    return int(end - start)


@njit
def _put(ring: int, position: int, word: int) -> None:
    store_relaxed(ring + LINE_BYTES + (position & (RING_WORDS - 1)) * WORD_BYTES, word)
