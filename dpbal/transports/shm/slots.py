"""Where in shared memory each rank's report and budget vectors lie, and what lies there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dpbal.core import VECTOR
from dpbal.sharedmem import LINE_BYTES, WORD_BYTES, Segment, SharedMemoryError
from dpbal.transports.base import RING
from dpbal.transports.records import EPOCH, SHAPE, record_words

ERA, WAVE, STEP = 0, 1, 2
"""First words of an entry of a ring: what was the era when it was published, and its version."""

VECTOR_START = 3
VECTOR_WORDS = len(VECTOR.names or ())

HEADER_WORDS = 4

ERA_START = HEADER_WORDS * WORD_BYTES
"""Where in the memory the era is counted. It changes when a rank takes or gives up its ring, and
nothing that was published in another can be read."""


class Slots(NamedTuple):
    """The shape of a group's shared memory.

    A header line holds ``SHAPE``, the two numbers here, the bytes of a slot, and the era. A slot
    for each rank follows, on lines of its own: a sequence word, then the record. Then comes a ring
    for each rank: ``RING`` entries on lines of their own, that of a step at ``step % RING``: a
    sequence word, then era, wave, step and the budget vector.

    Attributes:
        ranks: Number of ranks in the group.
        dispatchers: Number of dispatchers in front of it.
    """

    ranks: int
    dispatchers: int

    @property
    def record_words(self) -> int:
        """Words of a record."""
        return record_words(self.dispatchers)

    @property
    def slot_bytes(self) -> int:
        """Bytes from one slot to the next."""
        return _on_lines(self.record_words)

    @property
    def entry_bytes(self) -> int:
        """Bytes from one entry of a ring to the next."""
        return _on_lines(VECTOR_START + VECTOR_WORDS)

    @property
    def size(self) -> int:
        """Bytes of all."""
        return self.ring_start(self.ranks)

    @property
    def header(self) -> list[int]:
        """What the header says."""
        return [SHAPE, self.ranks, self.dispatchers, self.slot_bytes]

    def start(self, rank: int) -> int:
        """Bytes from the start of the memory to a rank's slot."""
        return LINE_BYTES + rank * self.slot_bytes

    def ring_start(self, rank: int) -> int:
        """Bytes from the start of the memory to a rank's ring."""
        return self.start(self.ranks) + rank * RING * self.entry_bytes

    def last_epoch(self, segment: Segment, rank: int) -> int:
        """Epoch of the rank's last process, 0 where there was none."""
        words = segment.array(np.int64, (1 + self.record_words,), self.start(rank))
        return int(words[1 + EPOCH])


def find(address: str) -> tuple[Segment, Slots]:
    """The shared memory of a group, and its shape.

    Raises:
        SharedMemoryError: If there is none, or it holds something else.
    """
    segment = Segment.attach(address)
    shape, ranks, dispatchers, _ = segment.array(np.int64, (HEADER_WORDS,)).tolist()
    if shape != SHAPE:
        raise SharedMemoryError(
            f"shared memory {address} holds no load reports of this version of dpbal; "
            "give the address of a transport's exchange, and all processes one version"
        )
    return segment, Slots(ranks, dispatchers)


def _on_lines(words: int) -> int:
    """Bytes of a sequence word and a record of so many words, on lines of their own."""
    return -(-(1 + words) * WORD_BYTES // LINE_BYTES) * LINE_BYTES
