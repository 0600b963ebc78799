"""Hash tables in plain arrays, compiled: linear probing, and no tombstones.

``keys`` has a power of two of slots. ``values`` is flat, with ``width`` numbers for each slot.
"""

from __future__ import annotations

import numpy as np

from dpbal.jit import njit

EMPTY = -1
"""What stands in ``keys`` for a free slot; it cannot be a key."""


@njit
def find_slot(keys: np.ndarray, key: int) -> int:
    """Where ``key`` is, or the free slot where it belongs."""
    mask = keys.size - 1
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(mixed >> np.uint64(32)) & mask
    while keys[slot] != EMPTY and keys[slot] != key:
        slot = (slot + 1) & mask
    return int(slot)


@njit
def remove_slot(keys: np.ndarray, values: np.ndarray, width: int, slot: int) -> None:
    """Remove the key of a slot and close the gap; the values of free slots mean nothing."""
    mask = keys.size - 1
    hole = slot
    keys[hole] = EMPTY
    slot = (hole + 1) & mask
    while keys[slot] != EMPTY:
        mixed = np.uint64(keys[slot]) * np.uint64(0x9E3779B97F4A7C15)
        home = np.int64(mixed >> np.uint64(32)) & mask
        if ((slot - home) & mask) >= ((slot - hole) & mask):
            keys[hole] = keys[slot]
            for place in range(width):
                values[hole * width + place] = values[slot * width + place]
            keys[slot] = EMPTY
            hole = slot
        slot = (slot + 1) & mask
