"""What ranks' prefix caches hold, from each engine to all front ends, over sockets of this host."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import zmq
from vllm.distributed.kv_events import EventBatch, EventPublisher

from dpbal.backends.vllm.rank.cached_blocks import CachedBlocks
from dpbal.indexers.base import CACHE_EVENT

if TYPE_CHECKING:
    from vllm.config.kv_events import KVEventsConfig

    from dpbal.indexers.kv_events import KvEvents

WHOLE, CHANGES = b"whole", b"changes"
"""A message holds all that is there, or what has changed since the one before."""

SEQUENCE_BYTES = 8


class RankPublisher(EventPublisher):
    """Tells front ends what has changed in a rank's prefix cache, and newcomers what is there.

    It stands in the place of vLLM's own publisher, and hands everything on to that. Blocks travel
    under dpbal's hashes, so that their tokens are hashed once and not in each front end.

    Args:
        rank: Whose.
        address: Of the group's sockets.
        block_tokens: Tokens in a block.
        most_blocks: Blocks in the rank's pool.
        own: vLLM's publisher.
    """

    def __init__(
        self, rank: int, address: str, block_tokens: int, most_blocks: int, own: EventPublisher
    ) -> None:
        super().__init__(rank)
        self._own = own
        self._rank = rank
        self._topic = _topic(rank)
        self._blocks = CachedBlocks(block_tokens, most_blocks)
        self._sequence = 0
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XPUB)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # one who asks again is heard too
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(_endpoint(address, rank))

    def publish(self, events: EventBatch) -> None:
        """Publish what a step has changed."""
        self._own.publish(events)
        hashes, stored = self._blocks.take(events.events)
        kind = CHANGES
        if self._is_asked():
            kind, hashes = WHOLE, self._blocks.hashes
            stored = np.ones_like(hashes)
        elif len(hashes) == 0:
            return
        rows = np.empty(len(hashes), CACHE_EVENT)
        rows["time_s"] = time.monotonic()
        rows["rank"] = self._rank
        rows["hash"], rows["stored"] = hashes, stored
        self._sequence += 1
        sequence = self._sequence.to_bytes(SEQUENCE_BYTES, "little")
        self._socket.send_multipart((self._topic, kind, sequence, rows.tobytes()))

    def shutdown(self) -> None:
        """Publish no more."""
        self._socket.close()
        self._own.shutdown()

    def get_publisher_config(self) -> KVEventsConfig | None:
        """What vLLM's own publisher does."""
        return self._own.get_publisher_config()

    def _is_asked(self) -> bool:
        """Whether a front end has come, or has asked for all that is there."""
        is_asked = False
        with suppress(zmq.Again):
            while True:
                is_asked |= self._socket.recv(zmq.NOBLOCK) == b"\1" + self._topic
        return is_asked


class GroupSubscriber:
    """Hands on to indexers what the ranks of a group publish.

    Where a message is lost, what the rank has stored is forgotten, and it is asked for all that it
    holds; so it is at the start, and when another process speaks for the rank. Another thread may
    close it, as vLLM's does when an engine has died.

    Args:
        address: Of the group's sockets.
        indexers: Who is told.
        ranks: How many there are.

    Attributes:
        lost: How many times a message was missing.
    """

    def __init__(self, address: str, indexers: Sequence[KvEvents], ranks: int) -> None:
        self._indexers = indexers
        self._last: list[int | None] = [None] * ranks  # sequences
        self.lost = 0
        self._is_closed = False
        self._turn = threading.RLock()  # a socket is for one thread at a time
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        for rank in range(ranks):
            self._socket.connect(_endpoint(address, rank))
            self._socket.subscribe(_topic(rank))

    def take_in(self) -> None:
        """Take in what has come, without waiting for more; nothing once it is closed."""
        socket = self._socket
        with self._turn:
            while not self._is_closed and int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                topic, kind, sequence, rows = socket.recv_multipart(zmq.NOBLOCK)
                self._take(
                    int.from_bytes(topic, "little"),
                    kind,
                    int.from_bytes(sequence, "little"),
                    np.frombuffer(rows, CACHE_EVENT).copy(),  # into memory that may be written
                )

    def close(self) -> None:
        """Listen no more; a second call does nothing."""
        with self._turn:
            self._is_closed = True
            self._socket.close()

    def _take(self, rank: int, kind: bytes, sequence: int, changes: np.ndarray) -> None:
        last = self._last[rank]
        if kind == WHOLE:
            self._clear(rank)
        elif last is None:
            return  # part of what will come as a whole
        elif sequence != last + 1:
            self.lost += 1
            self._last[rank] = None
            self._clear(rank)
            self._socket.unsubscribe(_topic(rank))
            self._socket.subscribe(_topic(rank))
            return
        self._last[rank] = sequence
        for indexer in self._indexers:
            indexer.apply(changes)

    def _clear(self, rank: int) -> None:
        for indexer in self._indexers:
            indexer.clear(rank)


def _endpoint(address: str, rank: int) -> str:
    return f"ipc://{address}/{rank}"


def _topic(rank: int) -> bytes:
    return rank.to_bytes(2, "little")
