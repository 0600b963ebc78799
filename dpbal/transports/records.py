"""What a rank says in one report, as the words that every transport carries."""

from __future__ import annotations

import time
import zlib

import numpy as np

from dpbal.core import REPORT, VECTOR, LoadTable, column
from dpbal.transports.base import Publisher, Subscriber

STATE = 0
"""First word of a record: one of the three below."""

SILENT, SERVING, CLOSED = 0, 1, 2
"""A rank that has published nothing yet, or not since it was started again; one that has; one that
has closed."""

PUBLISHED_NS = 1
"""Second word: when it was published, on the clock that all processes of a host share."""

REPORT_START = 2
REPORT_WORDS = len(REPORT.names or ())
EPOCH = REPORT_START + column("epoch")
VERSION = REPORT_START + column("version")
RECEIVED_START = REPORT_START + REPORT_WORDS
"""Where it says what the rank has received: the epoch of every dispatcher, then its sequence."""

LOOK_NS = 250_000_000
"""Nanoseconds between looks at whether silent ranks are there."""

SHAPE = zlib.crc32(repr((REPORT.descr, VECTOR.descr)).encode())
"""Differs where fields do, which is between versions of dpbal."""


def record_words(dispatchers: int) -> int:
    """Words of a record."""
    return RECEIVED_START + 2 * dispatchers


def split(record: np.ndarray, dispatchers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of a record: ``REPORT[1]``, epochs and sequences received by dispatcher."""
    return (
        record[REPORT_START:RECEIVED_START].view(REPORT),
        record[RECEIVED_START : RECEIVED_START + dispatchers],
        record[RECEIVED_START + dispatchers :],
    )


class RecordPublisher(Publisher):
    """A rank's end that sends a whole record each time.

    Args:
        dispatchers: Number of dispatchers in front of the group.
        after_epoch: Epoch of the rank's process before this one, 0 where none is known.
    """

    def __init__(self, dispatchers: int, after_epoch: int = 0) -> None:
        self._record = np.zeros(record_words(dispatchers), np.int64)
        self.report, self.received_epoch, self.received_sequence = split(self._record, dispatchers)
        # a clock may be set back, and a new process of a rank is known by its greater epoch
        self._epoch = max(time.time_ns(), after_epoch + 1)
        self._version = 0
        self._record[EPOCH] = self._epoch

    def _complete(self) -> np.ndarray:
        """The record as what is published next."""
        self._version += 1
        record = self._record
        record[STATE] = SERVING
        record[PUBLISHED_NS] = time.monotonic_ns()
        record[EPOCH] = self._epoch
        record[VERSION] = self._version
        return record


class RecordSubscriber(Subscriber):
    """A dispatcher's end that is given whole records; the newest of each rank wins.

    Args:
        table: Which it keeps up to date.
    """

    def __init__(self, table: LoadTable) -> None:
        self._table = table
        self._states = np.zeros(table.ranks, np.int64)
        self._published_ns = np.zeros(table.ranks, np.int64)

    def ages_s(self) -> np.ndarray:
        """``float64[ranks]``: seconds since each rank's newest report; infinity for none."""
        ages_s = (time.monotonic_ns() - self._published_ns) / 1e9
        return np.where(self._published_ns > 0, ages_s, np.inf)

    def _take(self, rank: int, record: np.ndarray) -> None:
        """Bring the table up to a record that is newer than what it has of the rank."""
        dispatchers = self._table.received_epoch.shape[1]
        is_new_state = record[STATE] != self._states[rank]
        self._states[rank] = record[STATE]
        self._published_ns[rank] = record[PUBLISHED_NS]
        self._table.integers[rank] = record[REPORT_START:RECEIVED_START]
        _, self._table.received_epoch[rank], self._table.received_sequence[rank] = split(
            record, dispatchers
        )
        self._table.generation += 1
        if is_new_state:
            self._table.update_selectable()
