"""Budget vectors in messages, each of which holds all that may be read of a rank."""

from __future__ import annotations

import time

import numpy as np

from dpbal.core import VECTOR
from dpbal.transports.base import RING, Vectors
from dpbal.transports.records import CLOSED, SERVING
from dpbal.transports.zmq.ear import Ear
from dpbal.transports.zmq.group import VECTORS, Group
from dpbal.transports.zmq.place import Place
from dpbal.transports.zmq.voice import BODY, EPOCH, NUMBER, Voice

STAMP, WAVE, STEP = range(3)
"""First words of an entry of a ring: when it was published, and its version."""

VECTOR_START = 3
ENTRY_WORDS = VECTOR_START + len(VECTOR.names or ())


class ZmqVectors(Vectors):
    """A rank's end, which says its last steps to the other ranks and hears theirs.

    A message holds the whole ring of ``RING`` steps. So it does not matter how many are lost before
    it, and one who comes late has all that may be read.

    Entries are stamped with the time. What was published before the last rank started or closed is
    void, which is told by their stamps. A rank whose clock is behind stamps later than all it has
    heard.
    """

    def __init__(self, address: str, rank: int) -> None:
        group = Group.at(address)
        place = Place(group, VECTORS, rank)
        self.own = np.zeros(1, VECTOR)
        self._words = self.own.view(np.int64)
        epoch = max(time.time_ns(), place.after_epoch + 1)
        self._rings = np.zeros((group.ranks, RING, ENTRY_WORDS), np.int64)
        self._said = np.zeros(1 + RING * ENTRY_WORDS, np.int64)
        self._said[0] = SERVING
        self._ring = self._said[1:].reshape(RING, ENTRY_WORDS)
        self._own_ring = self._rings[rank]
        self._epochs = [0] * group.ranks
        self._clock = self._era = epoch
        self._voice = Voice(place, epoch, self._said, epoch)
        self._ear = Ear(group, VECTORS, len(self._said), without=rank)

    def publish(self, wave: int, step: int) -> None:
        """Let all ranks read ``own`` as this version; in a wave, steps only grow.

        Raises:
            ValueError: After ``close``.
        """
        self._clock = stamp = max(time.time_ns(), self._clock + 1)
        place = step % RING
        entry = self._ring[place]
        entry[STAMP], entry[WAVE], entry[STEP] = stamp, wave, step
        entry[VECTOR_START:] = self._words
        self._voice.say(self._said, stamp)
        self._own_ring[place] = entry

    def read(self, wave: int, step: int, vectors: np.ndarray) -> bool:
        """Fill ``vectors`` with exactly this version of every rank, or return False.

        Raises:
            ValueError: If ``vectors`` has another size.
        """
        ranks = len(self._rings)
        if len(vectors) != ranks:
            raise ValueError(f"expected vectors of {ranks} ranks, got {len(vectors)}")
        self._ear.hear(self._hear)
        entries = self._rings[:, step % RING]
        if (
            (entries[:, STEP] != step).any()
            or (entries[:, WAVE] != wave).any()
            or (entries[:, STAMP] <= self._era).any()
        ):
            return False
        vectors.view(np.int64).reshape(ranks, -1)[:] = entries[:, VECTOR_START:]
        return True

    def close(self) -> None:
        """The rank publishes no more; a second call does nothing."""
        self._voice.close()
        self._ear.close()
        self._era = max(self._era, self._clock)  # nothing is left to read here either

    def _hear(self, rank: int, words: np.ndarray) -> None:
        epoch, number = words.item(EPOCH), words.item(NUMBER)
        known, self._epochs[rank] = self._epochs[rank], epoch
        if epoch > known:
            self._era = max(self._era, epoch)
        elif epoch < known:  # its clock was set back, and does not say what came before it
            self._era = self._clock
        self._clock = max(self._clock, number)
        if words[BODY] == CLOSED:
            self._era = max(self._era, number)
        self._rings[rank] = words[BODY + 1 :].reshape(RING, ENTRY_WORDS)
