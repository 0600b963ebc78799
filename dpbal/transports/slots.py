"""Where in shared memory each rank's report lies, and what lies there."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

from dpbal.core import REPORT, column
from dpbal.sharedmem import LINE_BYTES

WORD_BYTES = 8

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

HEADER_WORDS = 4
SHAPE = zlib.crc32(repr(REPORT.descr).encode())
"""Differs where a report's fields do, which is between versions of dpbal."""


class Slots(NamedTuple):
    """The shape of a group's shared memory.

    A header line holds ``SHAPE``, the two numbers here and the bytes of a slot. A slot for each
    rank follows, on lines of its own: a sequence word, then the record: state, time, report, and
    of every dispatcher the epoch and then the highest sequence that the rank has received.

    Attributes:
        ranks: Number of ranks in the group.
        dispatchers: Number of dispatchers in front of it.
    """

    ranks: int
    dispatchers: int

    @property
    def record_words(self) -> int:
        """Words of a record."""
        return REPORT_START + REPORT_WORDS + 2 * self.dispatchers

    @property
    def slot_bytes(self) -> int:
        """Bytes from one slot to the next."""
        lines = -(-(1 + self.record_words) * WORD_BYTES // LINE_BYTES)
        return lines * LINE_BYTES

    @property
    def size(self) -> int:
        """Bytes of all."""
        return self.start(self.ranks)

    @property
    def header(self) -> list[int]:
        """What the header says."""
        return [SHAPE, self.ranks, self.dispatchers, self.slot_bytes]

    def start(self, rank: int) -> int:
        """Bytes from the start of the memory to a rank's slot."""
        return LINE_BYTES + rank * self.slot_bytes

    def split(self, record: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Views of a record: ``REPORT[1]``, epochs and sequences received by dispatcher."""
        received = REPORT_START + REPORT_WORDS
        return (
            record[REPORT_START:received].view(REPORT),
            record[received : received + self.dispatchers],
            record[received + self.dispatchers :],
        )
