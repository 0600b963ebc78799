"""Ranks and dispatchers that serve numbered requests, each in a process of its own.

A dispatcher has a connection to every rank. It sends a request where its rule says, and hears when
it is done. The end of a connection is the end of who had the other: a dispatcher then releases what
it had sent there, as vLLM's front end does, and a rank drops what it had got.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from dpbal.backends.vllm.acknowledgement import Dispatched, acknowledge
from dpbal.balancers import BALANCERS
from dpbal.core import LoadTable, Request
from dpbal.dispatcher import Dispatcher
from dpbal.ledger import Ledger
from dpbal.signals import SIGNALS
from dpbal.step_time import StepTime
from dpbal.transports import ProcessTransport, Publisher

PAUSE_S = 0.002
"""Seconds between the steps of a rank, and between the looks of a dispatcher."""

AT_ONCE = 3
"""The most requests that a dispatcher sends between two looks."""

STEPS = 5
"""The most steps that a request takes."""

PATIENCE_S = 10.0
"""Seconds that a dispatcher waits for what is in flight to return to zero."""

QUIET, STOP = "quiet", "stop"
"""Files that tell dispatchers to send no more, and then ranks to end; as ``tell`` writes them."""

LONGEST_S = 30.0
"""Seconds after the time in such a file at which even who has done nothing since then ends."""

_DISPATCH = struct.Struct("qqqq")
_DONE = struct.Struct("q")
_BYTES = 64


def tell(file: Path, since_s: float) -> None:
    """Let all end who have done something after a time, and the others when they have."""
    whole = file.with_suffix(".part")
    whole.write_text(repr(since_s))
    whole.rename(file)


def _is_told(file: Path, last_s: float) -> bool:
    """Whether one who did something then shall end."""
    try:
        since_s = float(file.read_text())
    except FileNotFoundError:
        return False
    return last_s > since_s or time.monotonic() > since_s + LONGEST_S


class Rank:
    """Takes requests from dispatchers, and publishes after every step.

    Args:
        publisher: Its end of the transport.
        folder: Where the group's sockets are.
        number: Of the rank.
    """

    def __init__(self, publisher: Publisher, folder: str, number: int) -> None:
        """Listen to dispatchers."""
        self._publisher = publisher
        self._folder = Path(folder)
        path = self._folder / f"rank{number}"
        path.unlink(missing_ok=True)  # a former process of the rank was killed
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.setblocking(False)
        self._running: dict[socket.socket, dict[int, int]] = {}
        self._draws = random.Random(number)
        publisher.publish()

    def serve(self) -> list[float]:
        """Serve until told to stop; when each step ended, in seconds of the host's clock."""
        ended_s: list[float] = []
        step = 0
        while not _is_told(self._folder / STOP, ended_s[-1] if ended_s else 0.0):
            self._receive()
            self._step(step)
            step += 1
            ended_s.append(time.monotonic())
            time.sleep(PAUSE_S)
        self._publisher.close()
        return ended_s

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._running[connection] = {}
        for connection in list(self._running):
            with suppress(BlockingIOError):
                while message := _received(connection):
                    number, epoch, sequence, request = _DISPATCH.unpack(message)
                    acknowledge(
                        Dispatched(number, epoch, sequence),
                        self._publisher.received_epoch,
                        self._publisher.received_sequence,
                    )
                    self._running[connection][request] = self._draws.randint(1, STEPS)
                del self._running[connection]
                connection.close()

    def _step(self, step: int) -> None:
        for connection, requests in self._running.items():
            for request in list(requests):
                requests[request] -= 1
                if requests[request] == 0:
                    del requests[request]
                    with suppress(OSError):  # whoever sent it has ended, as the next look shows
                        connection.send(_DONE.pack(request))
        self._publisher.report["running"] = sum(map(len, self._running.values()))
        self._publisher.publish()
        self._publisher.step(step)


class FrontEnd:
    """A dispatcher with the rule of the shortest queue, and its connections.

    Args:
        transport: How it hears of loads.
        address: Of the group's exchange.
        folder: Where the group's sockets are.
        number: Of the dispatcher.
        shape: Numbers of ranks and dispatchers.
        seed: Of how much it sends.
    """

    def __init__(
        self,
        transport: ProcessTransport,
        address: str,
        folder: str,
        number: int,
        shape: tuple[int, int],
        seed: int,
    ) -> None:
        """Listen to ranks' reports."""
        ranks, _ = shape
        self._folder = Path(folder)
        self._number = number
        self._epoch = time.time_ns()
        self._table = LoadTable(*shape)
        self._subscriber = transport.subscriber(address, self._table)
        balancer = BALANCERS.build("fewest_requests", {})
        balancer.start(ranks, seed)
        signal = SIGNALS.build("sum", {"terms": {"requests": 1.0, "in_flight": 1.0}})
        self._ledger = Ledger(ranks, number, self._epoch)
        self._dispatcher = Dispatcher(balancer, signal, self._ledger, self._table, StepTime())
        self._connections: list[socket.socket | None] = [None] * ranks
        self._sent: list[set[int]] = [set() for _ in range(ranks)]
        self._draws = random.Random(seed)
        self._requests = self._refused = 0
        # what is compiled is loaded now, and not while others are killed
        self._dispatcher.dispatch(Request(0, 0.0, 100), 0.0)
        self._dispatcher.finish(0)

    def run(self) -> dict[str, Any]:
        """Send until it shall be quiet, and wait until nothing is in flight; what happened.

        A choice has the time before the look that it rests on.
        """
        chosen: list[tuple[float, int]] = []
        looked_s: list[float] = []
        heard_s: list[float] = []
        generation = -1
        while not _is_told(self._folder / QUIET, chosen[-1][0] if chosen else 0.0):
            before_s = time.monotonic()
            self._look()
            chosen += [(before_s, self._send()) for _ in range(self._draws.randint(0, AT_ONCE))]
            looked_s.append(time.monotonic())
            if generation != (generation := self._table.generation.item()):
                heard_s.append(looked_s[-1])
            time.sleep(PAUSE_S)
        deadline_s = time.monotonic() + PATIENCE_S
        while self._charged() and time.monotonic() < deadline_s:
            self._look()
            self._dispatcher.observe()
            time.sleep(PAUSE_S)
        self._subscriber.close()
        return {
            "chosen": chosen,
            "looked_s": looked_s,
            "heard_s": heard_s,
            "in_flight": self._ledger.in_flight.requests.tolist(),
            "tokens": self._ledger.in_flight.tokens.tolist(),
            "outstanding": self._ledger.outstanding.tolist(),
            "requests": self._requests,
            "refused": self._refused,
        }

    def _charged(self) -> bool:
        return bool(self._ledger.in_flight.requests.any() or self._ledger.outstanding.any())

    def _look(self) -> None:
        self._subscriber.refresh()
        for rank, connection in enumerate(self._connections):
            if connection is None:
                self._connections[rank] = self._connect(rank)
                continue
            with suppress(BlockingIOError):
                while message := _received(connection):
                    self._finish(rank, _DONE.unpack(message)[0])
                self._lose(rank)

    def _connect(self, rank: int) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(self._folder / f"rank{rank}"))
        except OSError:
            connection.close()
            return None
        connection.setblocking(False)
        return connection

    def _send(self) -> int:
        """Give a request to a rank; to which."""
        self._requests += 1
        request, now_s = self._requests, time.monotonic()
        placement = self._dispatcher.dispatch(Request(request, now_s, 100), now_s)
        rank = placement.rank
        self._sent[rank].add(request)
        connection = self._connections[rank]
        try:
            if connection is None:
                raise ConnectionError
            connection.send(_DISPATCH.pack(self._number, self._epoch, placement.sequence, request))
        except OSError:
            self._refused += 1
            self._finish(rank, request)
        return rank

    def _finish(self, rank: int, request: int) -> None:
        self._sent[rank].discard(request)
        self._dispatcher.finish(request)

    def _lose(self, rank: int) -> None:
        """The rank has ended: nothing that it had will be done."""
        connection = self._connections[rank]
        if connection is not None:
            connection.close()
        self._connections[rank] = None
        for request in list(self._sent[rank]):
            self._finish(rank, request)


def _received(connection: socket.socket) -> bytes:
    """A message; nothing where the other end is gone.

    Raises:
        BlockingIOError: If there is none now.
    """
    try:
        return connection.recv(_BYTES)
    except ConnectionError:
        return b""
