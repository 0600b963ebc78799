"""What a rank's prefix cache holds, told to all front ends of its host over a socket."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import zmq
from vllm.distributed.kv_events import EventBatch, EventPublisher

from dpbal.backends.vllm.cache_messages import CHANGES, SEQUENCE_BYTES, WHOLE, endpoint, topic
from dpbal.backends.vllm.rank.cached_blocks import CachedBlocks
from dpbal.indexers.base import CACHE_EVENT

if TYPE_CHECKING:
    from vllm.config.kv_events import KVEventsConfig


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
        self._topic = topic(rank)
        self._blocks = CachedBlocks(block_tokens, most_blocks)
        self._sequence = 0
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XPUB)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # one who asks again is heard too
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(endpoint(address, rank))

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
