"""What a front end hears of ranks' prefix caches, over sockets of this host."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import zmq

from dpbal.backends.vllm.cache_messages import WHOLE, endpoint, topic
from dpbal.indexers.base import CACHE_EVENT

if TYPE_CHECKING:
    from dpbal.indexers.kv_events import KvEvents


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
            self._socket.connect(endpoint(address, rank))
            self._socket.subscribe(topic(rank))

    def take_in(self) -> None:
        """Take in what has come, without waiting for more; nothing once it is closed."""
        socket = self._socket
        with self._turn:
            while not self._is_closed and int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                speaker, kind, sequence, rows = socket.recv_multipart(zmq.NOBLOCK)
                self._take(
                    int.from_bytes(speaker, "little"),
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
            self._socket.unsubscribe(topic(rank))
            self._socket.subscribe(topic(rank))
            return
        self._last[rank] = sequence
        for indexer in self._indexers:
            indexer.apply(changes)

    def _clear(self, rank: int) -> None:
        for indexer in self._indexers:
            indexer.clear(rank)
