"""Writes and reads slots of shared memory without locks, compiled: a seqlock for each slot.

The word before a record is odd while the record is written, and differs after every write. A
reader copies the record between two looks at that word, and has a whole one if both were the same
and even. It never makes the writer wait. Orders and fences are those of the second reader in the
reference; words are loaded and stored as relaxed atomics, so none is ever seen half.

Reference: H.-J. Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?", 2012.
"""

from __future__ import annotations

import numpy as np

from dpbal.jit import njit
from dpbal.sharedmem import WORD_BYTES
from dpbal.sharedmem.atomics import (
    fence_acquire,
    fence_release,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
)
from dpbal.transports.records import (
    EPOCH,
    PUBLISHED_NS,
    RECEIVED_START,
    REPORT_START,
    REPORT_WORDS,
    SERVING,
    STATE,
    VERSION,
)

TRIES = 1000
"""Looks at a slot, some microseconds, before its writer counts as stuck in the midst of a write."""

SEQUENCE, SEEN_STATE, SEEN_NS = 0, 1, 2
"""Rows of what a reader keeps of each rank: the sequence word of its last look, which is odd where
there may be a newer report that it could not read, and state and time of its copy."""

UNCHANGED, CHANGED, STATES_CHANGED = 0, 1, 2
"""What a look at all slots can find."""


@njit
def begin(slot: int) -> int:
    """Open a slot for writing, and return its odd sequence; also after a writer that died."""
    sequence = (load_relaxed(slot) + 1) | 1
    store_relaxed(slot, sequence)
    fence_release()
    return sequence


@njit
def end(slot: int, sequence: int) -> None:
    """Close a slot for writing."""
    store_release(slot, sequence + 1)


@njit
def write(slot: int, record: np.ndarray) -> None:
    """Replace a slot's record. One writer at a time."""
    sequence = begin(slot)
    for word in range(record.size):
        store_relaxed(slot + (1 + word) * WORD_BYTES, record[word])
    end(slot, sequence)


@njit
def write_state(slot: int, state: int) -> None:
    """Replace only the state in a slot's record."""
    sequence = begin(slot)
    store_relaxed(slot + (1 + STATE) * WORD_BYTES, state)
    end(slot, sequence)


@njit
def publish(slot: int, record: np.ndarray, epoch: int, version: int, now_ns: int) -> None:
    """Complete a record, and replace the slot's with it."""
    record[STATE] = SERVING
    record[PUBLISHED_NS] = now_ns
    record[EPOCH] = epoch
    record[VERSION] = version
    write(slot, record)


@njit
def read(slot: int, record: np.ndarray, tries: int) -> int:
    """Copy a slot's record, and return the sequence of the copy.

    An odd one means that there is no whole copy: it is that of a write that was under way.
    """
    sequence = 1
    for _ in range(tries):
        sequence = load_acquire(slot)
        if sequence & 1:
            continue
        for word in range(record.size):
            record[word] = load_relaxed(slot + (1 + word) * WORD_BYTES)
        fence_acquire()
        if load_relaxed(slot) == sequence:
            return sequence
        sequence |= 1
    return sequence


@njit
def refresh(
    slots: int,
    slot_bytes: int,
    integers: np.ndarray,
    received_epoch: np.ndarray,
    received_sequence: np.ndarray,
    generation: np.ndarray,
    record: np.ndarray,
    kept: np.ndarray,
) -> int:
    """Take what is new in the slots of all ranks into the arrays of a ``LoadTable``.

    A slot that is as it was costs one load. One whose writer is stuck is given up until its
    sequence word moves; what was copied of it before stands.

    Args:
        slots: Address of the first slot.
        slot_bytes: From one to the next.
        integers: As in ``LoadTable``, and so the next three.
        received_epoch: Likewise.
        received_sequence: Likewise.
        generation: Likewise; raised if anything is new.
        record: ``int64[record_words]``, to copy a slot into.
        kept: ``int64[3, ranks]``, see ``SEQUENCE``.
    """
    found = UNCHANGED
    dispatchers = received_epoch.shape[1]
    for rank in range(integers.shape[0]):
        slot = slots + rank * slot_bytes
        if load_relaxed(slot) == kept[SEQUENCE, rank]:
            continue
        sequence = read(slot, record, TRIES)
        kept[SEQUENCE, rank] = sequence
        if sequence & 1:
            continue
        found = max(found, CHANGED)
        if record[STATE] != kept[SEEN_STATE, rank]:
            kept[SEEN_STATE, rank] = record[STATE]
            found = STATES_CHANGED
        kept[SEEN_NS, rank] = record[PUBLISHED_NS]
        for field in range(REPORT_WORDS):
            integers[rank, field] = record[REPORT_START + field]
        received = RECEIVED_START
        for dispatcher in range(dispatchers):
            received_epoch[rank, dispatcher] = record[received + dispatcher]
            received_sequence[rank, dispatcher] = record[received + dispatchers + dispatcher]
    if found != UNCHANGED:
        generation[0] += 1
    return found
