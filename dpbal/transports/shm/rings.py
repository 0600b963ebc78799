"""Writes and reads rings of budget vectors in shared memory, compiled; an entry is a seqlock."""

from __future__ import annotations

import numpy as np

from dpbal.jit import njit
from dpbal.sharedmem.atomics import add, load_acquire
from dpbal.transports.base import RING
from dpbal.transports.shm import seqlock
from dpbal.transports.shm.slots import ERA, STEP, VECTOR_START, VECTOR_WORDS, WAVE


@njit
def begin_era(era: int) -> None:
    """Make void what all ranks have published."""
    add(era, 1)


@njit
def publish(
    ring: int, entry_bytes: int, era: int, record: np.ndarray, wave: int, step: int
) -> None:
    """Complete a record, and put it into the ring's entry for the step."""
    record[ERA] = load_acquire(era)
    record[WAVE] = wave
    record[STEP] = step
    seqlock.write(ring + step % RING * entry_bytes, record)


@njit
def read(
    rings: int,
    entry_bytes: int,
    era: int,
    records: np.ndarray,
    words: np.ndarray,
    wave: int,
    step: int,
) -> bool:
    """Copy exactly one version of all ranks' vectors, or nothing.

    Args:
        rings: Address of the first ring.
        entry_bytes: From one entry to the next.
        era: Address of the era.
        records: ``int64[ranks, words]``, to copy entries into.
        words: ``int64[ranks * VECTOR_WORDS]``, where the vectors go.
        wave: Of the version.
        step: Likewise.
    """
    # an era that ends while this runs leaves entries of the next, which are not of this one
    current = load_acquire(era)
    for rank in range(records.shape[0]):
        record = records[rank]
        entry = rings + (rank * RING + step % RING) * entry_bytes
        if seqlock.read(entry, record, seqlock.TRIES) & 1:
            return False
        if record[ERA] != current or record[WAVE] != wave or record[STEP] != step:
            return False
    for rank in range(records.shape[0]):
        for word in range(VECTOR_WORDS):
            words[rank * VECTOR_WORDS + word] = records[rank, VECTOR_START + word]
    return True
