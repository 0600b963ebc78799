"""The process of a manager: its lock and namespace, and what the rules of a lock ask of it.

It is that of ``multiprocessing.Manager``, with two differences: it ends with the process that
started it however that ends, and a lock is free again when the connection of its holder ends.
"""

from __future__ import annotations

import json
import multiprocessing.managers
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from dpbal.sharedmem import end_with_parent
from dpbal.transports.base import RING
from dpbal.transports.manager.link import LOADS, LOCK, RINGS, SERVING, Setup, socket_name


class Lock:
    """A lock that its holder's connection, which a thread of this process serves, gives back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder = 0

    def acquire(self, timeout_s: float) -> bool:
        """Take it, if that is possible in time."""
        if not self._lock.acquire(timeout=timeout_s):
            return False
        self._holder = threading.get_ident()
        return True

    def release(self) -> None:
        """Give it back, if this connection has it."""
        if self._holder == threading.get_ident():
            self._holder = 0
            self._lock.release()


class Rings:
    """The last budget vectors of every rank."""

    def __init__(self, ranks: int) -> None:
        self._rings: list[dict[int, tuple[int, int, list[int]]]] = [{} for _ in range(ranks)]
        self._mutex = threading.Lock()

    def clear(self) -> None:
        """Make void what all have published."""
        with self._mutex:
            for ring in self._rings:
                ring.clear()

    def publish(self, rank: int, wave: int, step: int, words: list[int]) -> None:
        """Keep a version of a rank's vector in place of that of ``RING`` steps before."""
        with self._mutex:
            self._rings[rank][step % RING] = (wave, step, words)

    def read(self, wave: int, step: int) -> list[list[int]] | None:
        """The vectors of one version of all ranks, or None unless all have it."""
        with self._mutex:
            entries = [ring.get(step % RING) for ring in self._rings]
        vectors = [e[2] for e in entries if e is not None and e[:2] == (wave, step)]
        return vectors if len(vectors) == len(entries) else None


class Server(multiprocessing.managers.Server):
    """A manager's server with the objects of a group."""

    def __init__(self, name: str, key: bytes, state: multiprocessing.managers.Namespace) -> None:
        super().__init__({}, socket_name(name), key, "pickle")
        self._lock = Lock()
        rings = Rings(len(state.loads))
        self.id_to_obj[LOCK] = self._lock, {"acquire", "release"}, {}
        self.id_to_obj[LOADS] = state, {"__getattribute__", "__setattr__"}, {}
        self.id_to_obj[RINGS] = rings, {"clear", "publish", "read"}, {}

    def serve_client(self, conn: Connection) -> None:
        """Answer a client until its connection ends; then it holds no lock."""
        try:
            super().serve_client(conn)
        finally:
            self._lock.release()


def main() -> None:
    """Read a ``Setup`` from the standard input, and serve until its owner ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the owner, whose end ends this
    setup = Setup(**json.loads(sys.stdin.readline()))
    end_with_parent(setup.owner)
    state: Any = multiprocessing.managers.Namespace()
    state.loads = [[0] * setup.record_words for _ in range(setup.ranks)]
    server = Server(setup.name, bytes.fromhex(setup.key), state)
    print(SERVING, end="", flush=True)
    server.serve_forever()
