"""Budget vectors through shared memory, between the processes of one host."""

from __future__ import annotations

import numpy as np

from dpbal.core import VECTOR
from dpbal.sharedmem import Segment, when_gone
from dpbal.transports import places
from dpbal.transports.base import Vectors
from dpbal.transports.shm.slots import ERA_START, VECTOR_START, VECTOR_WORDS, find


class ShmVectors(Vectors):
    """A rank's ring, to write, and the rings of all ranks, to read."""

    def __init__(self, address: str, rank: int) -> None:
        from dpbal.transports.shm import rings

        segment, slots = find(address)
        places.claim_vectors(segment, slots.ranks, rank)
        record = np.zeros(VECTOR_START + VECTOR_WORDS, np.int64)
        self.own = record[VECTOR_START:].view(VECTOR)
        self._segment = segment
        self._words = slots.ranks * VECTOR_WORDS
        era, bytes_ = segment.address + ERA_START, slots.entry_bytes
        self._ring = (segment.address + slots.ring_start(rank), bytes_, era, record)
        records = np.zeros((slots.ranks, len(record)), np.int64)
        self._rings = (segment.address + slots.ring_start(0), bytes_, era, records)
        self._publish, self._read = rings.publish, rings.read
        rings.begin_era(era)
        self._end = when_gone(self, _leave, segment, era)

    def publish(self, wave: int, step: int) -> None:
        """Let all ranks read ``own`` as this version; in a wave, steps only grow.

        Raises:
            ValueError: After ``close``.
        """
        if not self._end.alive:
            raise ValueError("this end for budget vectors is closed")
        self._publish(*self._ring, wave, step)

    def read(self, wave: int, step: int, vectors: np.ndarray) -> bool:
        """Fill ``vectors`` with exactly this version of every rank, or return False.

        Raises:
            ValueError: If ``vectors`` has another size.
        """
        words = vectors.view(np.int64)
        if len(words) != self._words:
            ranks = self._words // VECTOR_WORDS
            raise ValueError(f"expected vectors of {ranks} ranks, got {len(vectors)}")
        found: bool = self._read(*self._rings, words, wave, step)
        return found

    def close(self) -> None:
        """The rank publishes no more; a second call does nothing."""
        self._end()


def _leave(segment: Segment, era: int) -> None:
    from dpbal.transports.shm import rings

    rings.begin_era(era)
    segment.close()
