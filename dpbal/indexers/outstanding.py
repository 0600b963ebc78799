"""Which prefix blocks are on their way: those of requests that were dispatched and have not ended.

A request whose prefill is not finished is not in its rank's cache yet. To those that share its
prefix it is as good as cached: they queue behind it.
"""

from __future__ import annotations

import numpy as np

from dpbal.core import Request
from dpbal.indexers.table import Table, add_row, find_row, remove_empty
from dpbal.jit import njit


class Outstanding:
    """Counts, for each rank and block, the requests under way that have it.

    Its memory is that of the blocks of the requests that have not ended.

    Args:
        ranks: Number of ranks in the group.
    """

    def __init__(self, ranks: int) -> None:
        self._table = Table(ranks)
        self._requests: dict[int | str, tuple[int, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def size_bytes(self) -> int:
        """Memory of the table, without the requests' own hashes."""
        return self._table.size_bytes

    def add(self, request: Request, rank: int) -> None:
        """A request has been sent to a rank; one under the same id is replaced."""
        hashes = request.block_hashes
        self.remove(request.id)
        if hashes is None or len(hashes) == 0:
            return
        table = self._table
        table.reserve(len(hashes))
        _count_up(table.keys, table.values, table.used, table.ranks, hashes, rank)
        self._requests[request.id] = (rank, hashes)

    def remove(self, request_id: int | str) -> None:
        """A request has ended; an unknown id is ignored."""
        found = self._requests.pop(request_id, None)
        if found is not None:
            table = self._table
            rank, hashes = found
            _count_down(table.keys, table.values, table.used, table.ranks, hashes, rank)

    def forget(self, rank: int) -> None:
        """Nothing is on its way to a rank any more."""
        for request_id in [key for key, (sent, _) in self._requests.items() if sent == rank]:
            self.remove(request_id)

    def extend(self, hashes: np.ndarray, matched: np.ndarray) -> bool:
        """Raise each rank's leading blocks by those that follow and are on their way there.

        Args:
            hashes: ``int64[blocks]`` of a prompt.
            matched: ``int64[ranks]``, to raise.

        Returns:
            Whether any was raised.
        """
        return self._table.extend(hashes, matched)


@njit
def _count_up(
    keys: np.ndarray,
    values: np.ndarray,
    used: np.ndarray,
    ranks: int,
    hashes: np.ndarray,
    rank: int,
) -> None:
    for block in range(hashes.size):
        values[add_row(keys, values, used, ranks, hashes[block]) * ranks + rank] += 1


@njit
def _count_down(
    keys: np.ndarray,
    values: np.ndarray,
    used: np.ndarray,
    ranks: int,
    hashes: np.ndarray,
    rank: int,
) -> None:
    for block in range(hashes.size):
        row = find_row(keys, hashes[block])
        values[row * ranks + rank] -= 1
        remove_empty(keys, values, used, ranks, row)
