"""What every indexer is: an answer to how much of a prompt each rank's prefix cache holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpbal.core import Request
from dpbal.registry import Registry


@dataclass
class Indexer(ABC):
    """Knows, as well as it can, which prefix blocks each rank's cache holds.

    A request whose prefill is not finished counts as cached where it was sent: those that share its
    prefix would find it there by the time it is their turn.
    """

    is_shared: ClassVar[bool] = False
    """Whether all dispatchers of a group have one and the same index."""

    in_simulator_only: ClassVar[bool] = False
    """Whether it knows what no dispatcher of real engines could."""

    def __post_init__(self) -> None:
        self._epochs: dict[int, int] = {}

    @abstractmethod
    def start(self, ranks: int, capacity_tokens: int) -> None:
        """Called once before the first request, with nothing cached anywhere.

        Args:
            ranks: Size of the group.
            capacity_tokens: KV cache of a rank.
        """

    @abstractmethod
    def match(self, request: Request) -> np.ndarray:
        """``int64[ranks]``: leading blocks of the prompt that each rank holds, valid until changed.

        All 0 for a request without hashes.
        """

    @abstractmethod
    def dispatched(self, request: Request, rank: int, now_s: float) -> None:
        """A request has been sent to a rank."""

    def finished(self, request_id: int | str) -> None:  # noqa: B027 - few ask for it
        """A request has ended, however it ended; an unknown id is ignored."""

    @abstractmethod
    def forget(self, rank: int) -> None:
        """Nothing that was sent to a rank is there any more."""

    def restarted(self, rank: int, epoch: int) -> None:
        """A rank's process has been started anew; all dispatchers that share the index say so."""
        if self._epochs.get(rank) != epoch:
            self._epochs[rank] = epoch
            self.forget(rank)

    def cache_reset(self, rank: int) -> None:
        """A rank was told to clear its cache, and has; what is on its way there still is."""
        self.forget(rank)

    @property
    @abstractmethod
    def sizes(self) -> np.ndarray:
        """``int64[ranks]``: prefix blocks that each rank is believed to hold. Do not write."""


INDEXERS: Registry[Indexer] = Registry("indexer")

CACHE_EVENT = np.dtype(
    [
        ("time_s", np.float64),
        ("rank", np.int64),
        ("hash", np.int64),
        ("stored", np.int64),  # 1 where the block can be found from now on, 0 where no longer
    ]
)
"""A prefix block that has come into a rank's cache or has gone from it."""
