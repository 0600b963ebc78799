"""Blocks that each rank is believed to hold, compiled: least recently used forgotten first."""

from __future__ import annotations

import numpy as np

from dpbal.indexers.table import Table, add_row, find_row, remove_empty
from dpbal.jit import njit

ENTRY = np.dtype(
    [
        ("hash", np.int64),
        ("used_s", np.float64),
        ("older", np.int32),  # towards what will be forgotten first
        ("newer", np.int32),
    ]
)
"""A block of a rank. Of each rank there is a ring; the entry that begins it has the rank's number,
before it is the oldest and after it the newest."""

FIRST_ENTRIES = 1024

FREE, FRESH, FREE_COUNT = 0, 1, 2
"""First of the entries given back (0 for none), first that was never used, how many were given
back."""


class Recency:
    """A list of blocks for each rank, in the order in which they were last used.

    Args:
        ranks: Number of ranks in the group.

    Attributes:
        sizes: ``int64[ranks]``, blocks of each rank.
    """

    def __init__(self, ranks: int) -> None:
        self._table = Table(ranks)  # to the number of the entry, which is never 0
        self._entries = np.zeros(ranks + FIRST_ENTRIES, ENTRY)
        self._entries["older"][:ranks] = self._entries["newer"][:ranks] = np.arange(ranks)
        self._pool = np.array([0, ranks, 0])
        self.sizes = np.zeros(ranks, np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory of the arrays."""
        return self._table.size_bytes + self._entries.nbytes

    def extend(self, hashes: np.ndarray, matched: np.ndarray) -> bool:
        """See ``Table.extend``."""
        return self._table.extend(hashes, matched)

    def touch(self, hashes: np.ndarray, rank: int, now_s: float, limit: int) -> None:
        """A rank uses the blocks of a prompt, the last first: a prefix outlives its tail.

        Args:
            hashes: ``int64[blocks]``; if the limit is lower, only so many.
            rank: Which.
            now_s: When; no earlier than the last time.
            limit: Most blocks of the rank.
        """
        table = self._table
        count = min(len(hashes), limit)
        table.reserve(count)
        self._reserve(count, limit)
        _touch(
            table.keys,
            table.values,
            table.used,
            self._entries,
            self._pool,
            self.sizes,
            hashes,
            count,
            rank,
            now_s,
            limit,
        )

    def forget_older(self, than_s: float) -> None:
        """Forget what no rank has used since ``than_s`` seconds."""
        table = self._table
        arrays = (table.keys, table.values, table.used, self._entries, self._pool, self.sizes)
        _forget_older(*arrays, 0, table.ranks, than_s)

    def forget(self, rank: int) -> None:
        """Forget all blocks of a rank."""
        table = self._table
        arrays = (table.keys, table.values, table.used, self._entries, self._pool, self.sizes)
        _forget_older(*arrays, rank, rank + 1, np.inf)

    def _reserve(self, more: int, limit: int) -> None:
        _, fresh, given_back = self._pool.tolist()
        wanted = fresh + max(0, more - given_back)
        size = self._entries.size
        if wanted > size:
            bound = self.sizes.size * (1 + limit)
            entries = np.zeros(max(wanted, min(2 * size, bound)), ENTRY)
            entries[:size] = self._entries
            self._entries = entries


@njit
def _unlink(entries: np.ndarray, entry: int) -> None:
    older, newer = entries[entry].older, entries[entry].newer
    entries[older].newer = newer
    entries[newer].older = older


@njit
def _link_newest(entries: np.ndarray, entry: int, rank: int) -> None:
    newest = entries[rank].older
    entries[entry].older = newest
    entries[entry].newer = rank
    entries[newest].newer = entry
    entries[rank].older = entry


@njit
def _forget_oldest(
    keys: np.ndarray,
    values: np.ndarray,
    used: np.ndarray,
    entries: np.ndarray,
    pool: np.ndarray,
    sizes: np.ndarray,
    rank: int,
) -> None:
    ranks = sizes.size
    entry = entries[rank].newer
    _unlink(entries, entry)
    row = find_row(keys, entries[entry].hash)
    values[row * ranks + rank] = 0
    remove_empty(keys, values, used, ranks, row)
    entries[entry].newer = pool[FREE]
    pool[FREE] = entry
    pool[FREE_COUNT] += 1
    sizes[rank] -= 1


@njit
def _touch(
    keys: np.ndarray,
    values: np.ndarray,
    used: np.ndarray,
    entries: np.ndarray,
    pool: np.ndarray,
    sizes: np.ndarray,
    hashes: np.ndarray,
    count: int,
    rank: int,
    now_s: float,
    limit: int,
) -> None:
    ranks = sizes.size
    for block in range(count - 1, -1, -1):
        row = find_row(keys, hashes[block])
        entry = values[row * ranks + rank] if row >= 0 else 0
        if entry != 0:
            _unlink(entries, entry)
        else:
            while sizes[rank] >= limit:
                _forget_oldest(keys, values, used, entries, pool, sizes, rank)
            if pool[FREE] != 0:
                entry = pool[FREE]
                pool[FREE] = entries[entry].newer
                pool[FREE_COUNT] -= 1
            else:
                entry = pool[FRESH]
                pool[FRESH] += 1
            entries[entry].hash = hashes[block]
            row = add_row(keys, values, used, ranks, hashes[block])
            values[row * ranks + rank] = entry
            sizes[rank] += 1
        entries[entry].used_s = now_s
        _link_newest(entries, entry, rank)


@njit
def _forget_older(
    keys: np.ndarray,
    values: np.ndarray,
    used: np.ndarray,
    entries: np.ndarray,
    pool: np.ndarray,
    sizes: np.ndarray,
    first_rank: int,
    end_rank: int,
    than_s: float,
) -> None:
    for rank in range(first_rank, end_rank):
        while sizes[rank] > 0 and entries[entries[rank].newer].used_s < than_s:
            _forget_oldest(keys, values, used, entries, pool, sizes, rank)
