"""Budget vectors kept by a manager's process."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from dpbal.core import VECTOR
from dpbal.sharedmem import Segment, when_gone
from dpbal.transports import places
from dpbal.transports.base import Vectors
from dpbal.transports.manager.group import find
from dpbal.transports.manager.link import RINGS, Late, Link


class ManagerVectors(Vectors):
    """A rank's vectors, to send, and those of all ranks, to ask for."""

    def __init__(self, address: str, rank: int) -> None:
        group = find(address)
        places.claim_vectors(group.segment, group.ranks, rank)
        link = group.link(f"rank {rank} exchanges no budget vectors")
        with link.demanded():
            link.call(RINGS, "clear")
        self.own = np.zeros(1, VECTOR)
        self._rank, self._ranks = rank, group.ranks
        self._link = link
        self._end = when_gone(self, _leave, link, group.segment)

    def publish(self, wave: int, step: int) -> None:
        """Let all ranks read ``own`` as this version; in a wave, steps only grow.

        Raises:
            ValueError: After ``close``.
        """
        if not self._end.alive:
            raise ValueError("this end for budget vectors is closed")
        words = self.own.view(np.int64).tolist()
        with suppress(Late), self._link.calls():
            self._link.call(RINGS, "publish", self._rank, wave, step, words)

    def read(self, wave: int, step: int, vectors: np.ndarray) -> bool:
        """Fill ``vectors`` with exactly this version of every rank, or return False.

        Raises:
            ValueError: If ``vectors`` has another size.
        """
        if len(vectors) != self._ranks:
            raise ValueError(f"expected vectors of {self._ranks} ranks, got {len(vectors)}")
        found = None
        with suppress(Late), self._link.calls():
            found = self._link.call(RINGS, "read", wave, step)
        if found is None:
            return False
        vectors.view(np.int64).reshape(self._ranks, -1)[:] = found
        return True

    def close(self) -> None:
        """The rank publishes no more; a second call does nothing."""
        self._end()


def _leave(link: Link, segment: Segment) -> None:
    with suppress(Late), link.calls():
        link.call(RINGS, "clear")
    link.close()
    segment.close()
