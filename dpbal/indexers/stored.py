"""How often each rank holds each prefix block, by the events of its KV cache."""

from __future__ import annotations

import numpy as np

from dpbal.indexers.table import Table, add_row, find_row, remove_empty
from dpbal.jit import njit


class Stored:
    """Counts stored blocks up, and removed ones down.

    Args:
        ranks: Number of ranks in the group.

    Attributes:
        sizes: ``int64[ranks]``, blocks of each rank, each counted once.
    """

    def __init__(self, ranks: int) -> None:
        self._table = Table(ranks)
        self.sizes = np.zeros(ranks, np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory of the table."""
        return self._table.size_bytes

    def extend(self, hashes: np.ndarray, matched: np.ndarray) -> bool:
        """See ``Table.extend``."""
        return self._table.extend(hashes, matched)

    def apply(self, events: np.ndarray) -> int:
        """Take in ``CACHE_EVENT[events]``.

        Returns:
            How many were removals of what was not there.

        Raises:
            ValueError: If an event is of a rank that does not exist; those before it count.
        """
        table = self._table
        table.reserve(int(events["stored"].sum()))
        unknown, done = _apply(table.keys, table.values, table.used, self.sizes, events)
        if done < len(events):
            rank = events["rank"][done]
            raise ValueError(f"a cache event of rank {rank}; ranks are 0 to {self.sizes.size - 1}")
        return int(unknown)

    def forget(self, rank: int) -> None:
        """A rank holds nothing."""
        if self.sizes[rank]:
            self._table.forget(rank)
            self.sizes[rank] = 0


@njit
def _apply(
    keys: np.ndarray, values: np.ndarray, used: np.ndarray, sizes: np.ndarray, events: np.ndarray
) -> tuple[int, int]:
    ranks = sizes.size
    unknown = 0
    for number in range(events.size):
        event = events[number]
        rank = event.rank
        if rank < 0 or rank >= ranks:
            return unknown, number
        if event.stored != 0:
            place = add_row(keys, values, used, ranks, event.hash) * ranks + rank
            sizes[rank] += values[place] == 0
            values[place] += 1
            continue
        row = find_row(keys, event.hash)
        if row < 0 or values[row * ranks + rank] == 0:
            unknown += 1
            continue
        values[row * ranks + rank] -= 1
        if values[row * ranks + rank] == 0:
            sizes[rank] -= 1
            remove_empty(keys, values, used, ranks, row)
    return unknown, events.size
