"""Starts the process of a manager, and calls what is in it without waiting for ever."""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

from dpbal.sharedmem import SharedMemoryError

LOG = logging.getLogger(__name__)

LOCK, LOADS, RINGS = "lock", "loads", "rings"
"""Names of the objects in the process."""

SERVING = "serving\n"
"""What the process says when it can be called."""

PATIENCE_S = 1.0
"""The longest that anything waits for the manager's process or for its lock."""

START_S = 10.0
"""The longest that one who joins waits for them: on a host that is busy starting engines."""

RETRY_S = 5.0
"""From a lost connection to the next attempt to connect, which may wait ``PATIENCE_S``."""

MOMENT_S = 0.05
"""That one that was late has to answer the next call."""

_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of who listens."""

_TIMEVAL = struct.pack("ll", int(PATIENCE_S), int(PATIENCE_S % 1 * 1e6))


Server = subprocess.Popen[str]


class Late(Exception):
    """The manager, or its lock, is not to be had now."""


@dataclass(frozen=True)
class Setup:
    """What the process needs to know.

    Attributes:
        owner: Process that it ends with.
        name: Of its socket.
        key: That clients must know, in hexadecimal digits.
        ranks: Number of ranks in the group.
        record_words: Words of a record.
    """

    owner: int
    name: str
    key: str
    ranks: int
    record_words: int


def socket_name(name: str) -> str:
    """An address that is no file, and is gone with its process."""
    return f"\0{name}"


def start(setup: Setup) -> Server:
    """Start the process of a manager.

    Raises:
        SharedMemoryError: If it cannot start.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}"
    code += "; from dpbal.transports.manager.server import main; main()"
    # a child by fork would hold what threads of its parent hold, and what it has open
    server = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    answer = ""
    if server.stdin is not None and server.stdout is not None:
        # one that has ended already reads nothing
        with suppress(BrokenPipeError), server.stdin, server.stdout:
            server.stdin.write(json.dumps(asdict(setup)) + "\n")
            server.stdin.flush()
            answer = server.stdout.readline()
    if answer != SERVING:
        stop(server)
        raise SharedMemoryError(
            f"the manager's process did not start (exit code {server.returncode}); above is why"
        )
    return server


def stop(server: Server) -> None:
    """End the process of a manager."""
    server.kill()
    server.wait()


class Link:
    """A connection to a manager's process, for one thread.

    Calls that are not answered within ``PATIENCE_S`` together raise ``Late``, the first time with a
    warning. From then on nothing is waited for, until all is answered again, with another warning;
    a lock that was given meanwhile is given back.

    Args:
        name: Of the socket.
        key: That the manager demands.
        loss: What it means when there is no answer, for the warning.

    Raises:
        OSError: If nobody answers.
    """

    def __init__(self, name: str, key: bytes, loss: str) -> None:
        self._name, self._key, self._loss = name, key, loss
        self._is_late = False
        self._has_lock = False
        self._owed: deque[str] = deque()
        self._deadline_s = 0.0
        self._connect_at_s = 0.0
        self._connection: Connection | None = self._connect()
        disconnect = weakref.WeakMethod(self._disconnect)  # or a child would keep a dead one's lock
        os.register_at_fork(after_in_child=lambda: (method := disconnect()) and method())

    @contextmanager
    def calls(self, is_patient: bool = False, patience_s: float = PATIENCE_S) -> Iterator[None]:
        """For some calls that wait no longer than ``patience_s`` together.

        Args:
            is_patient: Whether they may wait though the last ones were late.
            patience_s: Seconds.

        Raises:
            Late: If they have no answer in time, or nobody is there.
        """
        may_wait = is_patient or not self._is_late
        self._deadline_s = time.monotonic() + (patience_s if may_wait else 0.0)
        try:
            self._settle()
            yield
        except (Late, OSError, EOFError) as error:
            try:
                if not isinstance(error, Late):
                    raise
                self._give_back()
            except (OSError, EOFError):
                self._disconnect()
            if not self._is_late:
                self._is_late = True
                state = "has ended"
                if self._connection is not None:
                    state = f"or its lock is not to be had within {PATIENCE_S:g} s; until it is"
                LOG.warning("the manager %s %s, %s", self._name, state, self._loss)
            raise Late from None
        except BaseException:  # in the midst of a call, whose answer would be taken for the next's
            self._disconnect()
            self._connect_at_s = 0.0
            raise
        if self._is_late:
            self._is_late = False
            LOG.warning("the manager %s answers again", self._name)

    @contextmanager
    def demanded(self) -> Iterator[None]:
        """For some calls without which there is nothing to go on with.

        Raises:
            SharedMemoryError: If they have no answer in time.
        """
        try:
            with self.calls(patience_s=START_S):
                yield
        except Late:
            self.close()
            raise SharedMemoryError(
                f"the manager {self._name} does not answer within {START_S:g} s; it may be "
                "stopped, or one that is stopped may have its lock: continue or end that process"
            ) from None

    def call(self, thing: str, method: str, *args: Any) -> Any:
        """Call a method of one of the process's objects, within ``calls``."""
        self._send(thing, method, *args)
        # one that answered the last time has a moment, however late it was before
        return self._answer(max(self._deadline_s - time.monotonic(), MOMENT_S))

    def lock(self) -> None:
        """Take the lock."""
        wait_s = max(0.8 * (self._deadline_s - time.monotonic()), 0.0)  # the rest is to hear of it
        if not self.call(LOCK, "acquire", wait_s):
            raise Late

    def unlock(self) -> None:
        """Give the lock back."""
        self.call(LOCK, "release")

    def close(self) -> None:
        """Call no more; the process takes the lock back."""
        self._disconnect()
        self._connect_at_s = float("inf")

    def _settle(self) -> None:
        """Hear what is still to be answered, and give back what that gave."""
        if self._connection is None:
            if time.monotonic() < self._connect_at_s:
                raise Late
            self._connection = self._connect()
        while self._owed:
            self._answer(max(self._deadline_s - time.monotonic(), 0.0))
        if self._has_lock:
            self.unlock()

    def _give_back(self) -> None:
        """Ask for the lock to be released after all before, and do not wait for it.

        Whoever was late may look again much later, and others would wait for the lock until then.
        """
        has_lock = self._has_lock or "acquire" in self._owed
        if self._connection is not None and has_lock and "release" not in self._owed:
            self._send(LOCK, "release")

    def _send(self, thing: str, method: str, *args: Any) -> None:
        if self._connection is None:
            raise Late
        self._connection.send((thing, method, args, {}))
        self._owed.append(method)

    def _answer(self, wait_s: float) -> Any:
        assert self._connection is not None
        if not self._connection.poll(wait_s):
            raise Late
        kind, value = self._connection.recv()
        method = self._owed.popleft()
        if kind != "#RETURN":
            raise RuntimeError(f"the manager could not {method}: {value}")
        if method in ("acquire", "release"):
            self._has_lock = method == "acquire" and value
        return value

    def _connect(self) -> Connection:
        with socket.socket(socket.AF_UNIX) as unconnected:
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                unconnected.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL)
            unconnected.connect(socket_name(self._name))
            peer = unconnected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            if _CREDENTIALS.unpack(peer)[1] != os.getuid():  # the name is free when a manager ends
                raise ConnectionRefusedError("another user has its name")
            connection = Connection(unconnected.detach())
        try:
            answer_challenge(connection, self._key)
            deliver_challenge(connection, self._key)
            connection.send((None, "accept_connection", ("",), {}))
            connection.recv()
        except BaseException as error:
            connection.close()
            if isinstance(error, AuthenticationError):
                raise ConnectionRefusedError(str(error)) from None
            raise
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._owed.clear()
        self._has_lock = False
        self._connect_at_s = time.monotonic() + RETRY_S
