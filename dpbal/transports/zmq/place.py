"""A rank's place in its group, which one object of all processes has at a time."""

from __future__ import annotations

import os
import weakref

import zmq
from zmq.utils.monitor import recv_monitor_message

from dpbal.transports.sockets import Lock, SocketError
from dpbal.transports.zmq.group import VECTORS, Group

_MONITOR_MS = 1000  # it has said so by then, or never will


class Place:
    """A rank's right to say things of one kind in its group, which one object has at a time.

    Attributes:
        after_epoch: Epoch of who had it before, 0 where that is not known.

    Raises:
        SocketError: If there is no such rank or group, or another object has the right.
    """

    def __init__(self, group: Group, kind: str, rank: int) -> None:
        group.check(rank)
        self.group, self.kind, self.rank = group, kind, rank
        self.after_epoch = 0
        self._lock: Lock | None = None
        self._listener: int | None = None
        deafen = weakref.WeakMethod(self._deafen)
        os.register_at_fork(after_in_child=lambda: (method := deafen()) and method())
        if group.hosts:
            return  # one at a time can listen on a port
        try:  # the last one gets a path
            self._lock = Lock(group.path(kind, rank).with_suffix(".lock"))
        except BlockingIOError:
            raise self.taken() from None
        except OSError:
            raise group.missing() from None
        self.after_epoch = self._lock.number

    def taken(self) -> SocketError:
        """What to raise where another has it."""
        verb = "publishes budget vectors" if self.kind == VECTORS else "has a publisher"
        place, port = "in this process or another", ""
        if self.group.hosts:
            port = f", or another program has port {self.group.port_of(self.kind, self.rank)}"
        return SocketError(
            f"rank {self.rank} at {self.group.address} {verb} already, {place}{port}; "
            "close that one, or give each rank a number of its own"
        )

    def begin(self, socket: zmq.Socket[bytes], epoch: int) -> None:
        """Listen with a socket, but in no child that is forked.

        Raises:
            SocketError: If another has the place, or the address is of another host.
        """
        endpoint = self.group.own_endpoint(self.kind, self.rank)
        socket.setsockopt(zmq.IPV6, "[" in endpoint)
        monitor = socket.get_monitor_socket(zmq.EVENT_LISTENING)
        monitor.setsockopt(zmq.RCVTIMEO, _MONITOR_MS)
        try:
            socket.bind(endpoint)
            self._listener = recv_monitor_message(monitor)["value"]
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE:
                raise self.taken() from None
            raise SocketError(
                f"rank {self.rank} cannot listen on {endpoint}: {error.strerror}; it "
                "must run on the host that transport.hosts gives its ranks"
            ) from None
        finally:
            socket.disable_monitor()
            monitor.close()
        if self._lock is not None:
            self._lock.number = epoch

    def stop(self) -> None:
        """The socket is about to close."""
        self._listener = None

    def leave(self) -> None:
        """Let another have it; a second call does nothing."""
        if self._lock is not None:
            self._lock.close()

    def _deafen(self) -> None:
        if self._listener is not None:
            os.close(self._listener)  # or a forked child would have the port of a dead parent
            self._listener = None  # a child of the child has other files under this number
