"""A socket that hears what all ranks of a group say, and tells news from what is old or lost."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

import numpy as np
import zmq

from dpbal.sharedmem import when_gone
from dpbal.transports.zmq.group import Group
from dpbal.transports.zmq.voice import BODY, FROM, HEAD, clock, head

LOG = logging.getLogger(__name__)

PATIENCE_NS = 2_000_000_000
"""Nanoseconds of silence after which a rank is out of reach."""

ASK_NS = 1_000_000_000
"""Nanoseconds of silence after which ranks are told again that somebody listens. Where a socket
keeps only the newest, libzmq may lose a message, and this one is otherwise sent once."""

_RECONNECT_MS, _RECONNECT_MOST_MS = 50, 500
_PING_MS, _PONG_MS = 1000, 3000  # of a host that is gone, or a child of a rank, connections stay
_CONNECT_MS = 1000  # the kernel would ask a host that was down once in a minute
_POLLIN = int(zmq.POLLIN)
_MOST_BYTES = 1 << 20
_DRIFT = 1e-3  # more than clocks of two hosts do


class Ear:
    """Hears the newest that each rank says, of one kind; what is old or heard before is left out.

    Messages of a rank may be lost, come twice, or in another order. A process of the rank with a
    smaller epoch than the one known is a former one, unless the one known is silent for
    ``PATIENCE_NS``: then a clock was set back.

    Clocks of hosts differ. The least that messages of a process seem to take is taken for the
    difference, so the age of a message counts the time it lay here unread.

    Args:
        group: Which.
        kind: Of what is said.
        words: Of one thing that is said.
        without: A rank that is not listened to.
    """

    def __init__(self, group: Group, kind: str, words: int, without: int | None = None) -> None:
        self._process = os.getpid()
        self._group = group
        self._bytes = 8 * (BODY + words)
        self._head = HEAD.pack(*head(group, kind))
        self._clock = clock()
        self._epochs = [0] * group.ranks
        self._numbers = [-1] * group.ranks
        self._heard_ns = [0] * group.ranks
        self._differences_ns = [0] * group.ranks
        self._emptied_ns = 0
        self._listened = [rank for rank in range(group.ranks) if rank != without]
        self._next_ask_ns = time.monotonic_ns() + ASK_NS
        self._refused: set[int | None] = set()
        self._turn = threading.RLock()  # a socket is for one thread at a time
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._end = when_gone(self, _release, self._socket, self._context)
        self._listen(group, kind)

    def hear(self, take: Callable[[int, np.ndarray], None]) -> None:
        """Hand on what is new, without waiting for more; nothing after ``close``.

        Args:
            take: Is given a rank and its message, to read only.

        Raises:
            ValueError: In a forked child.
        """
        if os.getpid() != self._process:
            raise ValueError("this end of a transport is of another process; make one in this")
        socket = self._socket
        with self._turn:
            if time.monotonic_ns() >= self._next_ask_ns and self._end.alive:
                self._ask_again()
            # no more than one of each, or those who never stop talking would keep us here
            for _ in range(self._group.ranks):
                looked_ns = time.monotonic_ns()
                if not self._end.alive or not int(socket.getsockopt(zmq.EVENTS)) & _POLLIN:
                    self._emptied_ns = looked_ns  # what comes next comes later than this
                    return
                message = socket.recv(zmq.NOBLOCK)
                if len(message) != self._bytes or message[: HEAD.size] != self._head:
                    self._refuse(message)
                else:
                    self._sort(message, take)

    def here_ns(self, rank: int, there_ns: int) -> int:
        """When something was on this process's clock, from when it was on that of a rank."""
        return there_ns + self._differences_ns[rank]

    def is_silent(self) -> np.ndarray:
        """``bool[ranks]``: those that were heard and have said nothing for ``PATIENCE_NS``."""
        heard_ns = np.array(self._heard_ns)
        silent: np.ndarray = (heard_ns > 0) & (time.monotonic_ns() - heard_ns > PATIENCE_NS)
        return silent

    def close(self) -> None:
        """Listen no more; a second call does nothing."""
        with self._turn:
            self._end()

    def _ask_again(self) -> None:
        now_ns = time.monotonic_ns()
        self._next_ask_ns = now_ns + ASK_NS
        if any(now_ns - self._heard_ns[rank] > ASK_NS for rank in self._listened):
            self._socket.subscribe(b"")

    def _listen(self, group: Group, kind: str) -> None:
        socket = self._socket
        socket.setsockopt(zmq.CONFLATE, 1)  # of each rank
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MOST_MS)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, _CONNECT_MS)
        socket.setsockopt(zmq.HANDSHAKE_IVL, _PONG_MS)
        socket.setsockopt(zmq.MAXMSGSIZE, _MOST_BYTES)
        socket.subscribe(b"")
        socket.setsockopt(zmq.HEARTBEAT_IVL, _PING_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _PONG_MS)
        socket.setsockopt(zmq.HEARTBEAT_TTL, _PONG_MS)
        for rank in self._listened:
            endpoint = group.endpoint(kind, rank)
            socket.setsockopt(zmq.IPV6, "[" in endpoint)
            socket.connect(endpoint)

    def _sort(self, message: bytes, take: Callable[[int, np.ndarray], None]) -> None:
        rank, epoch, number, sent_ns, clock = FROM.unpack_from(message, HEAD.size)
        if not 0 <= rank < self._group.ranks:
            self._refuse(message)
            return
        now_ns = time.monotonic_ns()
        known, heard_ns = self._epochs[rank], self._heard_ns[rank]
        if epoch < known and now_ns - heard_ns < PATIENCE_NS:
            return
        difference_ns = 0 if clock == self._clock else now_ns - sent_ns
        if epoch == known:
            if difference_ns:
                slack_ns = int(_DRIFT * (now_ns - heard_ns))
                least_ns = self._emptied_ns - sent_ns  # more where a host has been suspended
                known_ns = max(self._differences_ns[rank] + slack_ns, least_ns)
                difference_ns = min(difference_ns, known_ns)
            heard_ns = max(heard_ns, sent_ns + difference_ns)
        else:
            self._epochs[rank] = epoch
            self._numbers[rank] = -1
            heard_ns = sent_ns + difference_ns
        self._differences_ns[rank] = difference_ns
        self._heard_ns[rank] = heard_ns
        if number > self._numbers[rank]:
            self._numbers[rank] = number
            take(rank, np.frombuffer(message, np.int64))

    def _refuse(self, message: bytes) -> None:
        """Say that a message is none of this group's, once for each rank."""
        rank: int | None = None
        if message[:8] == self._head[:8] and len(message) >= HEAD.size + FROM.size:
            rank, *_ = FROM.unpack_from(message, HEAD.size)
            if not 0 <= rank < self._group.ranks:
                rank = None
        if rank not in self._refused:
            self._refused.add(rank)
            LOG.warning(
                "ignored what %s at %s says: it is of another group or another version of dpbal; "
                "start all hosts of the group with one version and the same numbers of ranks and "
                "front ends, or give the group ports of its own",
                "somebody" if rank is None else f"rank {rank}",
                self._group.address,
            )


def _release(socket: zmq.Socket[bytes], context: zmq.Context[zmq.Socket[bytes]]) -> None:
    socket.close()
    context.term()
