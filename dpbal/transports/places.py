"""Places of a group's ranks in its shared memory, which the kernel takes from a process that ends.

The places of publishers come first, by rank, then those of ends for budget vectors.
"""

from __future__ import annotations

import time

import numpy as np

from dpbal.core import LoadTable
from dpbal.sharedmem import Segment, SharedMemoryError
from dpbal.transports.records import CLOSED, LOOK_NS


def claim_reports(segment: Segment, ranks: int, rank: int) -> None:
    """Take the place of a rank's publisher.

    Raises:
        SharedMemoryError: If there is no such rank, or it has a publisher.
    """
    _check(segment, ranks, rank)
    if not segment.claim(rank):
        raise SharedMemoryError(
            f"rank {rank} at {segment.name} has a publisher already, in this process or another; "
            "close that one, or give each rank a number of its own"
        )


def claim_vectors(segment: Segment, ranks: int, rank: int) -> None:
    """Take the place of a rank's end for budget vectors.

    Raises:
        SharedMemoryError: If there is no such rank, or it has such an end.
    """
    _check(segment, ranks, rank)
    if not segment.claim(ranks + rank):
        raise SharedMemoryError(
            f"rank {rank} at {segment.name} publishes budget vectors already, in this process or "
            "another; close that end, or give each rank a number of its own"
        )


def check_table(segment: Segment, ranks: int, dispatchers: int, table: LoadTable) -> None:
    """Check that a table has room for what the ranks of a group say.

    Raises:
        SharedMemoryError: If it is of another size.
    """
    rows, columns = table.received_sequence.shape
    if (rows, columns) != (ranks, dispatchers):
        raise SharedMemoryError(
            f"a table of {rows} ranks and {columns} dispatchers does not fit {segment.name}, "
            f"which has {ranks} and {dispatchers}"
        )


def look(segment: Segment, table: LoadTable, states: np.ndarray, seen_ns: np.ndarray) -> None:
    """Tell a table which ranks have closed, and which silent ones' process has ended otherwise.

    Args:
        segment: Whose places the ranks have; after its end nothing is looked at.
        table: Of the dispatcher, with the records that have been seen.
        states: ``int64[ranks]``, the state in each rank's record.
        seen_ns: ``int64[ranks]``, when each was published.
    """
    if not segment.is_open:
        return
    is_gone = states == CLOSED
    # also before its first report: where ranks meet, there may never be one of anybody
    has_been = ~is_gone & (table.reports["epoch"] > 0)
    is_silent = has_been & (time.monotonic_ns() - seen_ns > LOOK_NS)
    for rank in is_silent.nonzero()[0].tolist():
        is_gone[rank] = not segment.is_claimed(rank)
    table.set_present(~is_gone)


def _check(segment: Segment, ranks: int, rank: int) -> None:
    if not 0 <= rank < ranks:
        raise SharedMemoryError(
            f"there is no rank {rank} at {segment.name}, which has 0 to {ranks - 1}"
        )
