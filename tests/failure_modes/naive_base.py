"""What the naive transports have in common."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zmq

from dpbal.core import LoadTable
from dpbal.transports import Exchange, ProcessTransport, Timing, Vectors
from dpbal.transports.records import RecordPublisher, RecordSubscriber


class Place(Exchange):
    """A folder and a queue."""

    def __init__(self, dispatchers: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="naive-")
        self.address = f"{self.folder.name}:{dispatchers}"

    def close(self) -> None:
        self.folder.cleanup()


def folder_of(address: str) -> Path:
    return Path(address.partition(":")[0])


def dispatchers_of(address: str) -> int:
    return int(address.partition(":")[2])


class Naive(ProcessTransport):
    """Reports only, and nothing is checked."""

    is_at_once: ClassVar[bool] = True
    """As of ``tests.transports.groups.Case``."""

    @property
    def timing(self) -> Timing:
        return Timing()

    def create(self, ranks: int, dispatchers: int) -> Exchange:
        return Place(dispatchers)

    def vectors(self, address: str, rank: int) -> Vectors:
        raise NotImplementedError


class Sender(RecordPublisher):
    """Hands each record to a function."""

    def __init__(
        self,
        dispatchers: int,
        send: Callable[[np.ndarray], Any],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(dispatchers)
        self._send, self._close = send, close

    def publish(self) -> None:
        self._send(self._complete())

    def close(self) -> None:
        self._close()


class Receiver(RecordSubscriber):
    """Is told by a function of a rank and its record; None where there is none now."""

    def __init__(
        self,
        table: LoadTable,
        receive: Callable[[], tuple[int, np.ndarray] | None],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(table)
        self._receive, self._close = receive, close

    def refresh(self) -> None:
        received = self._receive()
        if received is not None:
            self._take(*received)

    def close(self) -> None:
        self._close()


def socket_of(kind: int) -> zmq.Socket[bytes]:
    made: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    made.setsockopt(zmq.LINGER, 0)
    return made


def sender_to(socket: zmq.Socket[bytes], address: str) -> Sender:
    return Sender(
        dispatchers_of(address), lambda record: socket.send(record.tobytes()), socket.close
    )


def receiver_from(socket: zmq.Socket[bytes], table: LoadTable) -> Receiver:
    def receive() -> tuple[int, np.ndarray] | None:
        return (0, np.frombuffer(socket.recv(), np.int64)) if socket.poll(0) else None

    return Receiver(table, receive, socket.close)
