"""What dispatchers in several processes of a host tell each other of their dispatches."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from dpbal.errors import ConfigError
from dpbal.indexers import dispatch_rings
from dpbal.indexers.dispatch_rings import (
    MOST_HASHES,
    OVERRUN,
    RECORD_WORDS,
    RING_BYTES,
    RING_WORDS,
)
from dpbal.sharedmem import LINE_BYTES, Segment, SharedMemoryError

SHAPE = zlib.crc32(repr(("dispatches", RECORD_WORDS, RING_WORDS)).encode())
"""Differs where the layout does, which is between versions of dpbal."""

HEADER_WORDS = 2


class DispatchExchange:
    """A ring for each dispatcher; they are there until their owner closes them or ends.

    Attributes:
        address: What dispatchers find them by.

    Args:
        dispatchers: How many there are.

    Raises:
        ConfigError: For a group without dispatchers.
        SharedMemoryError: If the host has no shared memory, or not enough.
    """

    def __init__(self, dispatchers: int) -> None:
        if dispatchers < 1:
            raise ConfigError(f"a group has at least 1 dispatcher, got {dispatchers}")
        self._segment = Segment.create("dispatches", LINE_BYTES + dispatchers * RING_BYTES)
        self._segment.array(np.int64, (HEADER_WORDS,))[:] = (SHAPE, dispatchers)
        self.address = self._segment.name

    def close(self) -> None:
        """Remove them; processes that have found them may go on until they end."""
        self._segment.close()


class Dispatches:
    """The end of one dispatcher.

    Args:
        address: Of the exchange.
        dispatcher: Its number; one process at a time, though one that was killed may start again.

    Attributes:
        overruns: Times that something new in a ring was lost, as its writer had come round to it.

    Raises:
        SharedMemoryError: If there is nothing at the address, no such dispatcher, or another
            process is it.
    """

    def __init__(self, address: str, dispatcher: int) -> None:
        segment = Segment.attach(address)
        shape, dispatchers = segment.array(np.int64, (HEADER_WORDS,)).tolist()
        if shape != SHAPE:
            raise SharedMemoryError(
                f"shared memory {address} holds no dispatches of this version of dpbal; give the "
                "address of a shared record's exchange, and all processes one version"
            )
        if not 0 <= dispatcher < dispatchers:
            raise SharedMemoryError(
                f"there is no dispatcher {dispatcher} at {address}, which has 0 to "
                f"{dispatchers - 1}"
            )
        if not segment.claim(dispatcher):
            raise SharedMemoryError(
                f"dispatcher {dispatcher} at {address} is there already, in this process or "
                "another; close that one, or give each dispatcher a number of its own"
            )
        self.overruns = 0
        self._segment = segment
        self._dispatcher = dispatcher
        self._rings = segment.address + LINE_BYTES
        self._seen = np.zeros(dispatchers, np.int64)  # its own of an earlier process are news
        self._words = np.zeros(RING_WORDS, np.int64)

    def tell(self, hashes: np.ndarray, rank: int, block_tokens: int) -> None:
        """A prompt has been sent to a rank."""
        ring = self._rings + self._dispatcher * RING_BYTES
        count = min(len(hashes), MOST_HASHES)
        end = dispatch_rings.write(ring, hashes, count, rank, block_tokens)
        self._seen[self._dispatcher] = end

    def news(self) -> Iterator[tuple[np.ndarray, int, int]]:
        """What others have sent: hashes, valid until the next, rank, tokens of a block."""
        number = -1  # each ring is looked at once, however fast it is written
        while (number := self._next_with_news(number + 1)) < self._seen.size:
            ring = self._rings + number * RING_BYTES
            count = dispatch_rings.read(ring, self._seen, number, self._words)
            if count == OVERRUN:
                self.overruns += 1
                continue
            start = 0
            while start < count:
                hashes, rank, block_tokens = self._words[start : start + RECORD_WORDS].tolist()
                start += RECORD_WORDS
                yield self._words[start : start + hashes], rank, block_tokens
                start += hashes

    def close(self) -> None:
        """Tell and look no more."""
        self._segment.close()

    def _next_with_news(self, first: int) -> int:
        return dispatch_rings.find_news(self._rings, self._seen, first)
