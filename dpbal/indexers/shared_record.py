"""What all dispatchers of a group have sent where: one record, or one for each process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from dpbal.core import Request
from dpbal.indexers.base import INDEXERS
from dpbal.indexers.own_record import OwnRecord

if TYPE_CHECKING:
    from dpbal.indexers.shared_dispatches import Dispatches, DispatchExchange


@INDEXERS.register("shared_record")
@dataclass
class SharedRecord(OwnRecord):
    """Believes each rank to hold the prompts that any dispatcher has sent there last.

    Dispatchers of one process have one record. Those of several processes have one each, and tell
    each other of every dispatch through shared memory. What they miss of each other they do not
    know, and nothing else comes of it.

    Args:
        size: How many times the KV cache of a rank it remembers.
        max_age_s: Blocks that were not used for so long are forgotten at the next dispatch; None
            for never.

    Example:
        ``dpbal-run +balancer=marginal_prefill indexer=shared_record group.dispatchers=4``
    """

    is_shared: ClassVar[bool] = True

    @staticmethod
    def create(dispatchers: int) -> DispatchExchange:
        """Make what dispatchers of several processes tell each other through.

        Raises:
            ConfigError: For a group without dispatchers.
            SharedMemoryError: If the host has no shared memory, or not enough.
        """
        from dpbal.indexers.shared_dispatches import DispatchExchange

        return DispatchExchange(dispatchers)

    def start(self, ranks: int, capacity_tokens: int) -> None:
        """Begin with nothing sent anywhere, and with no other process."""
        super().start(ranks, capacity_tokens)
        self._dispatches: Dispatches | None = None
        self._now_s = 0.0

    def connect(self, address: str, dispatcher: int) -> None:
        """Tell the dispatchers of other processes, and listen to them, from now on.

        Args:
            address: Of the exchange.
            dispatcher: The number of this one.

        Raises:
            SharedMemoryError: If there is nothing at the address, no such dispatcher, or another
                process is it.
        """
        from dpbal.indexers.shared_dispatches import Dispatches

        self._dispatches = Dispatches(address, dispatcher)

    @property
    def overruns(self) -> int:
        """Times that another process' dispatches came faster than they were read, and are lost."""
        return 0 if self._dispatches is None else self._dispatches.overruns

    def match(self, request: Request) -> np.ndarray:
        """Leading blocks that were sent to each rank by anyone and are not forgotten."""
        self._listen()
        return super().match(request)

    def dispatched(self, request: Request, rank: int, now_s: float) -> None:
        """The rank holds the prompt from now on, and the others are told."""
        self._now_s = now_s
        super().dispatched(request, rank, now_s)
        if self._dispatches is not None and request.block_hashes is not None:
            self._dispatches.tell(request.block_hashes, rank, request.block_tokens)

    def forget(self, rank: int) -> None:
        """What anyone has sent there is lost."""
        self._listen()
        super().forget(rank)

    def close(self) -> None:
        """Tell and listen no more."""
        if self._dispatches is not None:
            self._dispatches.close()
            self._dispatches = None

    def _listen(self) -> None:
        if self._dispatches is None:
            return
        for hashes, rank, block_tokens in self._dispatches.news():
            if 0 <= rank < self._matched.size:  # compiled code trusts it
                # it was sent since this dispatcher's last; clocks of processes need not agree
                self._touch(hashes, rank, block_tokens, self._now_s)
