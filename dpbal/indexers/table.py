"""A compiled hash table from prefix block to a number for each rank, where 0 is "not there"."""

from __future__ import annotations

import numpy as np

from dpbal.jit import njit
from dpbal.open_addressing import EMPTY, find_slot, remove_slot

FIRST_SLOTS = 1024

MOST_FULL = 0.625
"""Share of slots that may be in use; beyond it there are twice as many."""


class Table:
    """Which ranks hold which prefix blocks, and a number for each rank and block.

    Compiled functions work on the arrays, after ``reserve`` has made room for what they add. The
    hash ``EMPTY`` cannot be a key; its row is the one behind the last slot.

    Args:
        ranks: Number of ranks in the group.

    Attributes:
        keys: ``int64[slots]``, block hashes.
        values: ``int32[(slots + 1) * ranks]``, rows; one that is 0 for all ranks is removed.
        used: ``int64[1]``, slots in use.
    """

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.keys = np.full(FIRST_SLOTS, EMPTY, np.int64)
        self.values = np.zeros((FIRST_SLOTS + 1) * ranks, np.int32)
        self.used = np.zeros(1, np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory of the arrays."""
        return self.keys.nbytes + self.values.nbytes

    def reserve(self, more: int) -> None:
        """Make room for so many more blocks."""
        wanted = self.used.item() + more
        slots = self.keys.size
        if wanted > MOST_FULL * slots:
            while wanted > MOST_FULL * slots:
                slots *= 2
            self._move(slots)

    def forget(self, rank: int) -> None:
        """Set all blocks of a rank to 0."""
        self.values[rank :: self.ranks] = 0
        self._move(self.keys.size)

    def extend(self, hashes: np.ndarray, matched: np.ndarray) -> bool:
        """Raise each rank's leading blocks by those that follow and are there.

        Args:
            hashes: ``int64[blocks]`` of a prompt.
            matched: ``int64[ranks]``, to raise.

        Returns:
            Whether any was raised.
        """
        return bool(extend(self.keys, self.values, hashes, matched))

    def _move(self, slots: int) -> None:
        keys = np.full(slots, EMPTY, np.int64)
        values = np.zeros((slots + 1) * self.ranks, np.int32)
        self.used[0] = move_rows(self.keys, self.values, keys, values, self.ranks)
        self.keys, self.values = keys, values


@njit
def find_row(keys: np.ndarray, key: int) -> int:
    """The row of a block, or -1 where no rank has it."""
    if key == EMPTY:
        return int(keys.size)
    slot = find_slot(keys, key)
    return slot if keys[slot] == key else -1


@njit
def add_row(keys: np.ndarray, values: np.ndarray, used: np.ndarray, ranks: int, key: int) -> int:
    """The row of a block; a new one, all 0, where no rank had it."""
    if key == EMPTY:
        return int(keys.size)
    slot = find_slot(keys, key)
    if keys[slot] != key:
        keys[slot] = key
        used[0] += 1
        for rank in range(ranks):
            values[slot * ranks + rank] = 0
    return slot


@njit
def remove_empty(
    keys: np.ndarray, values: np.ndarray, used: np.ndarray, ranks: int, row: int
) -> None:
    """Remove a row if no rank has the block any more; rows may have changed places after it."""
    if row < keys.size and _is_empty(values, ranks, row):
        remove_slot(keys, values, ranks, row)
        used[0] -= 1


@njit
def move_rows(
    keys: np.ndarray, values: np.ndarray, to_keys: np.ndarray, to_values: np.ndarray, ranks: int
) -> int:
    """Copy all rows that are not 0 into other arrays, and return how many slots they take there."""
    used = 0
    for row in range(keys.size + 1):
        to_row = to_keys.size
        if row < keys.size:
            if keys[row] == EMPTY or _is_empty(values, ranks, row):
                continue
            to_row = find_slot(to_keys, keys[row])
            to_keys[to_row] = keys[row]
            used += 1
        for rank in range(ranks):
            to_values[to_row * ranks + rank] = values[row * ranks + rank]
    return used


@njit
def _is_empty(values: np.ndarray, ranks: int, row: int) -> bool:
    for place in range(row * ranks, (row + 1) * ranks):  # noqa: SIM110 - compiled
        if values[place] != 0:
            return False
    return True


@njit
def extend(keys: np.ndarray, values: np.ndarray, hashes: np.ndarray, matched: np.ndarray) -> bool:
    """See ``Table.extend``."""
    ranks = matched.size
    block = _nearest(matched, 0, hashes.size)
    is_longer = False
    while block < hashes.size:
        row = find_row(keys, hashes[block])
        raised = 0
        if row >= 0:
            start = row * ranks
            for rank in range(ranks):
                step = int(matched[rank] == block) & int(values[start + rank] != 0)
                matched[rank] += step
                raised += step
        block += 1
        if raised:
            is_longer = True
            continue
        block = _nearest(matched, block, hashes.size)  # where a rank that is further goes on
    return is_longer


@njit
def _nearest(matched: np.ndarray, least: int, most: int) -> int:
    nearest = most
    for rank in range(matched.size):
        if matched[rank] >= least:
            nearest = min(nearest, matched[rank])
    return nearest
