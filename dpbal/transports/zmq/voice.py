"""A rank's socket that says one thing, the newest, to all who listen, again and again."""

from __future__ import annotations

import os
import secrets
import struct
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import zmq

from dpbal.sharedmem import when_gone
from dpbal.transports.records import CLOSED, SHAPE
from dpbal.transports.zmq.group import VECTORS, Group
from dpbal.transports.zmq.place import Place

HEAD = struct.Struct("3q")
"""Begins a message of a group: its form, the numbers of ranks and of dispatchers."""

FROM = struct.Struct("5q")
"""Follows: the rank, the epoch of its end, the place of what it says in the order of all that it
says, and when it was sent, on which clock."""

RANK, EPOCH, NUMBER, SENT_NS, CLOCK = range(3, 8)

BODY = 8
"""Where what is said begins: the state of the rank's end, as in a record, then anything."""

BEAT_S = 0.1
"""Seconds of silence after which a rank says again what it said last."""

LINGER_MS = 200
"""Longest wait for the last word of one that closes to be on its way."""

_MOST_HEARD_BYTES = 1 << 10
"""Of what a listener says: that it listens."""

_LAST_WORD_S = 0.01


def head(group: Group, kind: str) -> tuple[int, int, int]:
    """The ``HEAD`` of messages of a kind; another where their fields differ."""
    return 2 * SHAPE + (kind == VECTORS), group.ranks, group.dispatchers


def clock() -> int:
    """Which monotonic clock this process has: that of its host since the last boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return zlib.crc32((boot + str(Path("/proc/self/ns/time").readlink())).encode())
    except OSError:  # it says nothing of itself, so it is like no other
        return zlib.crc32(secrets.token_bytes(16))


class Voice:
    """Says the newest thing to whoever listens or will, and never waits for any of them.

    Every listener has at most one message on its way, which the next replaces. When nothing has
    been said for ``BEAT_S``, the last is said again by a thread, so that who came late or lost it
    has it, and who hears nothing knows that this process has stopped.

    Args:
        place: The rank's; it is left with this.
        epoch: Of the rank's end.
        words: What it says first; the state of the end is the first of them.
        number: Of that, as in ``say``.

    Raises:
        SocketError: As ``Place``.
    """

    def __init__(self, place: Place, epoch: int, words: np.ndarray, number: int) -> None:
        self._process = os.getpid()
        self._line = _Line(place, epoch, words, number)
        self._end = when_gone(self, self._line.end)

    def say(self, words: np.ndarray, number: int) -> None:
        """Say something new.

        Args:
            words: What.
            number: Greater than of all before.

        Raises:
            ValueError: After ``close``, and in a forked child.
        """
        if not self._end.alive or os.getpid() != self._process:
            raise ValueError("this end of a transport is closed, or of another process")
        self._line.say(words, number)

    def close(self) -> None:
        """Say that the end has closed, and no more; a second call does nothing."""
        self._end()


class _Line:
    """What the voice and its thread share."""

    def __init__(self, place: Place, epoch: int, words: np.ndarray, number: int) -> None:
        self._place = place
        self._turn = threading.RLock()  # a socket is for one thread at a time
        self._message = np.zeros(BODY + len(words), np.int64)
        self._message[:NUMBER] = (*head(place.group, place.kind), place.rank, epoch)
        self._message[CLOCK] = clock()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.CONFLATE, 1)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MOST_HEARD_BYTES)
        try:
            place.begin(self._socket, epoch)
        except BaseException:
            self._release()
            raise
        self.say(words, number)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="dpbal heartbeat", daemon=True)
        self._thread.start()

    def say(self, words: np.ndarray, number: int) -> None:
        with self._turn:
            self._message[BODY:] = words
            self._message[NUMBER] = number
            self._send()

    def end(self) -> None:
        self._is_over.set()
        if self._thread is not threading.current_thread():  # which may collect garbage
            self._thread.join()
        with self._turn:
            self._message[BODY] = CLOSED
            self._message[NUMBER] += 1
            with suppress(zmq.ZMQError):
                self._send()
            time.sleep(_LAST_WORD_S)  # a socket that closes takes back what is not on its way
            self._release()

    def _send(self) -> None:
        self._said_ns = time.monotonic_ns()
        self._message[SENT_NS] = self._said_ns
        self._socket.send(self._message.data)

    def _repeat(self) -> None:
        wait_s = BEAT_S
        while not self._is_over.wait(wait_s):
            with self._turn:
                silent_s = (time.monotonic_ns() - self._said_ns) / 1e9
                if silent_s >= BEAT_S:
                    self._send()
                    silent_s = 0.0
                wait_s = BEAT_S - silent_s

    def _release(self) -> None:
        self._place.stop()
        self._socket.close()
        self._context.term()
        self._place.leave()
