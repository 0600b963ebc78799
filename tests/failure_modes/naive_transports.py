"""The transports of others, each as short as it can be with its failure left in."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import defaultdict, deque
from itertools import count
from pathlib import Path

import numpy as np
import zmq

from dpbal.core import LoadTable
from dpbal.transports import Exchange, Publisher, Subscriber
from dpbal.transports.records import RecordPublisher, record_words, split
from tests.failure_modes.naive_base import (
    Naive,
    Receiver,
    Sender,
    dispatchers_of,
    folder_of,
    receiver_from,
    sender_to,
    socket_of,
)

QUEUES: defaultdict[str, deque[tuple[int, np.ndarray]]] = defaultdict(deque)


class OneAfterTheOther(Naive):
    """SGLang #25142: the controller's one socket, with every report in it, one a turn.

    Reports there were 140 s old.
    """

    def publisher(self, address: str, rank: int) -> Publisher:
        queue = QUEUES[address]
        return Sender(dispatchers_of(address), lambda record: queue.append((rank, record.copy())))

    def subscriber(self, address: str, table: LoadTable) -> Subscriber:
        queue = QUEUES[address]
        return Receiver(table, lambda: queue.popleft() if queue else None)


class GatherOfIds(Naive):
    """PR #7379: the ids that were received in an interval, in a tensor of 512 numbers."""

    def publisher(self, address: str, rank: int) -> Publisher:
        before = 0

        def send(record: np.ndarray) -> None:
            nonlocal before
            received = split(record, 1)[2].item()
            ids = list(range(before + 1, received + 1))
            before = received
            assert len(ids) <= 511
            gathered = np.zeros(512, np.int32)
            gathered[1] = len(ids)
            gathered[2 : 2 + len(ids)] = ids
            told = record.copy()
            split(told, 1)[2][:] = gathered[2:].max()
            QUEUES[address].append((rank, told))

        return Sender(1, send)

    def subscriber(self, address: str, table: LoadTable) -> Subscriber:
        queue = QUEUES[address]
        return Receiver(table, lambda: queue.popleft() if queue else None)


class EveryFortySteps(Naive):
    """PR #7379: gathered at every 40th step, so what happens in the last steps is not."""

    def publisher(self, address: str, rank: int) -> Publisher:
        return EveryFortyStepsSender(dispatchers_of(address), QUEUES[address], rank)

    def subscriber(self, address: str, table: LoadTable) -> Subscriber:
        queue = QUEUES[address]
        return Receiver(table, lambda: queue.pop() if queue else None)


class EveryFortyStepsSender(RecordPublisher):
    """Publishes when it steps."""

    def __init__(self, dispatchers: int, queue: deque[tuple[int, np.ndarray]], rank: int) -> None:
        super().__init__(dispatchers)
        self._queue, self._rank = queue, rank

    def publish(self) -> None:
        self._complete()

    def step(self, step: int) -> None:
        if step % 40 == 0:
            self._queue.append((self._rank, self._record.copy()))

    def close(self) -> None:
        pass


class SaidOnce(Naive):
    """A PUB socket: what is said before somebody listens is lost, as in smg #1115 and #1116."""

    is_at_once = False

    def publisher(self, address: str, rank: int) -> Publisher:
        socket = socket_of(zmq.PUB)
        socket.bind(f"ipc://{folder_of(address)}/{rank}")
        return sender_to(socket, address)

    def subscriber(self, address: str, table: LoadTable) -> Subscriber:
        socket = socket_of(zmq.SUB)
        socket.subscribe(b"")
        for rank in range(table.ranks):
            socket.connect(f"ipc://{folder_of(address)}/{rank}")
        return receiver_from(socket, table)


class ReaderBinds(Naive):
    """SGLang #27142: the socket for loads was bound by whoever read it, and more than one did."""

    is_at_once = False

    def publisher(self, address: str, rank: int) -> Publisher:
        socket = socket_of(zmq.PUSH)
        socket.connect(f"ipc://{folder_of(address)}/loads")
        return sender_to(socket, address)

    def subscriber(self, address: str, table: LoadTable) -> Subscriber:
        socket = socket_of(zmq.PULL)
        socket.bind(f"ipc://{folder_of(address)}/loads")
        return receiver_from(socket, table)


class Unlocked(Naive):
    """A list that every rank gets, changes and sets as a whole, without the lock of PR #7379."""

    is_at_once = False

    def __init__(self) -> None:
        self.records: list[np.ndarray | None] = [None, None]
        self._both = threading.Barrier(2)

    def publisher(self, address: str, rank: int) -> Publisher:
        def send(record: np.ndarray) -> None:
            own = list(self.records)
            self._both.wait(10)  # two ranks get it before either sets it
            own[rank] = record.copy()
            self.records = own

        return Sender(dispatchers_of(address), send)

    def subscriber(self, address: str, table: LoadTable) -> Subscriber:
        turns = count()

        def receive() -> tuple[int, np.ndarray] | None:
            rank = next(turns) % 2
            record = self.records[rank]
            return None if record is None else (rank, record)

        return Receiver(table, receive)


class Unversioned(Naive):
    """Fields by their place, and nothing that says whose: so SGLang #26348 led to #28634."""

    def publisher(self, address: str, rank: int) -> Publisher:
        path = folder_of(address) / str(rank)
        return Sender(dispatchers_of(address), lambda record: path.write_bytes(record.tobytes()))

    def subscriber(self, address: str, table: LoadTable) -> Subscriber:
        path, words = folder_of(address) / "0", record_words(dispatchers_of(address))

        def receive() -> tuple[int, np.ndarray] | None:
            if not path.exists():
                return None
            return 0, np.frombuffer(path.read_bytes(), np.int64)[:words]

        return Receiver(table, receive)


class FixedName(Unversioned):
    """PR #7379, first form: ``sglang_dp_balance_local_tokens``, of every server of a host."""

    def create(self, ranks: int, dispatchers: int) -> Exchange:
        return NamedPlace(Path(tempfile.gettempdir()) / f"naive-{os.getpid()}", dispatchers)


class NamedPlace(Exchange):
    """A folder of a given name, made anew."""

    def __init__(self, path: Path, dispatchers: int) -> None:
        path.mkdir()
        self.address = f"{path}:{dispatchers}"

    def close(self) -> None:
        shutil.rmtree(folder_of(self.address))
