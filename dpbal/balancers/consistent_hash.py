"""The rank that owns a request's key on a ring of hashes, unless it has too many already."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.core import Request, View


@BALANCERS.register("consistent_hash")
@dataclass
class ConsistentHash(Balancer):
    """Each request goes to the next rank on a hash ring from its key on that has room.

    Every rank has ``virtual_nodes`` places on the ring. The key is the session; without one the
    first ``prefix_blocks`` blocks of the prompt, or as many as it has; and without these the
    request's own name. Formula, for N ranks that may be chosen and n_r requests of this dispatcher
    outstanding at rank r::

        room at r    if n_r < ceil(max_load * (sum of n + 1) / N)

    It reads no report and no index, and dispatchers agree without a word: the same key has the same
    rank. A rank that goes moves its own keys only, and the ring itself never changes.

    Wins as the cheapest affinity there is, where there are many keys of like size. Loses where few
    keys carry most of the work, or where all prompts begin alike: the bound spills them over its
    neighbours, requests are no measure of work, and hits are left to chance.

    Not reproduced: SGLang's ``bounded_consistent_hashing`` has 1.5 times the mean (at least one
    request) as its bound, keeps the owner if nobody is below, and bounds explicit keys only;
    vllm-router has 160 virtual nodes and no bound (``max_load=null``).

    Args:
        max_load: Multiple of an even share of the requests that a rank may have, at least 1; null
            for no bound.
        virtual_nodes: Places of each rank on the ring.
        prefix_blocks: Blocks of the prompt that are its key where there is no session.

    Example:
        ``dpbal-run +balancer=consistent_hash workload=conversations``

    Reference: V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent hashing with bounded loads",
    SODA 2018.

    Raises:
        ValueError: For a bound under 1 or infinite, or numbers of places or blocks under 1.
    """

    uses_signal = False
    uses_reports = False

    max_load: float | None = 1.25
    virtual_nodes: int = 160
    prefix_blocks: int = 1

    def __post_init__(self) -> None:
        if self.max_load is not None and not 1 <= self.max_load < math.inf:
            raise ValueError(f"max_load must be finite and at least 1, got {self.max_load}")
        for name in ("virtual_nodes", "prefix_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def reads_hashes(self) -> bool:
        """The key of a request without a session is made of them."""
        return True

    def start(self, ranks: int, seed: int) -> None:
        """Lay out the ring, which is the same for every seed, and load the compiled walk."""
        # numba is slow to import, and composing a config needs no walk
        from dpbal.balancers.scans import first_with_room

        self._first_with_room = first_with_room
        places = sorted(
            (_hash(f"rank {rank} {node}"), rank)
            for rank in range(ranks)
            for node in range(self.virtual_nodes)
        )
        self._places = [place for place, _ in places]
        self._owners = np.array([rank for _, rank in places], np.int64)

    def choose(self, request: Request, view: View) -> int:
        """The first selectable rank with room, from the key's place on."""
        rank: int = self._first_with_room(
            self._owners,
            bisect_right(self._places, _hash(self._key(request))),
            view.outstanding,
            view.selectable,
            self.max_load is not None,
            self.max_load or 0.0,
        )
        return rank

    def _key(self, request: Request) -> str:
        if request.session is not None:
            return f"session {request.session}"
        hashes = request.block_hashes
        if hashes is None or len(hashes) == 0:
            return f"request {request.id}"
        # equal hashes mean that all blocks up to there are equal
        return f"prefix {hashes.item(min(self.prefix_blocks, len(hashes)) - 1)}"


def _hash(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")
