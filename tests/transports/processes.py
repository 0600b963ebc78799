"""Processes that do what a test tells them, and were not started by the code under test."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

PATIENCE_S = 60.0
"""Seconds after which a process that says nothing, or does not end, fails its test."""


class Process:
    """A process that runs a line of code at a time.

    It is forked from an interpreter that has imported much and done nothing.

    Args:
        start: The first line.
        modules: What that interpreter shall have imported too.
        is_new: Whether it is an interpreter of its own instead, which has imported nothing.
    """

    def __init__(
        self, start: str = "", *, modules: Sequence[str] = (), is_new: bool = False
    ) -> None:
        self._socket, its = socket.socketpair()
        self._heard = bytearray()
        self._output = os.memfd_create("output")
        message = {
            "modules": list(modules),
            "is_new": is_new,
            "folder": os.getcwd(),
            "environ": dict(os.environ),
        }
        self.pid: int = _zygote().ask(message, [its.fileno(), self._output])
        its.close()
        self._ended = os.pidfd_open(self.pid)
        self._code: int | None = None
        self._last_output = ""
        try:
            if start:
                self.do(start)
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def do(self, code: str) -> Any:
        """Run code there; what an expression gives."""
        self.tell(code)
        return self.answer()

    def tell(self, code: str) -> None:
        """Run code there; if it ends, ``answer`` says what it gives."""
        self._socket.sendall(json.dumps(code).encode() + b"\n")

    def answer(self) -> Any:
        """What the code that it was told gives."""
        while b"\n" not in self._heard:
            files: list[Any] = [self._socket, self._ended]
            ready = select.select(files, [], [], PATIENCE_S)[0]
            assert ready, f"process {self.pid} says nothing: {self.output}"
            said = self._socket.recv(1 << 16) if self._socket in ready else b""
            if not said:
                select.select([self._ended], [], [], PATIENCE_S)
                raise AssertionError(f"process {self.pid} has ended: {self.output}")
            self._heard += said
        answer, _, self._heard = self._heard.partition(b"\n")
        return json.loads(answer)

    @property
    def output(self) -> str:
        """What it has written so far, and whoever it has started."""
        if self._code is None:
            self._last_output = os.pread(self._output, 1 << 20, 0).decode(errors="replace")
        return self._last_output

    def send(self, which: signal.Signals) -> None:
        """Send it a signal."""
        signal.pidfd_send_signal(self._ended, which)

    def until_stopped(self) -> None:
        """Wait until it has been stopped by a signal."""
        deadline_s = time.monotonic() + PATIENCE_S
        while _state(self.pid) != "T":
            assert time.monotonic() < deadline_s, f"process {self.pid} goes on: {self.output}"
            time.sleep(0.001)

    def left_running(self) -> list[int]:
        """Processes that it has started, or these have, and that run on."""
        found = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return [pid for pid in found if pid != self.pid and _session(pid) == self.pid]

    def leave(self) -> None:
        """Tell it no more, so that it ends; ``end`` waits for that."""
        with suppress(OSError):  # it has
            self._socket.shutdown(socket.SHUT_WR)

    def end(self, how: signal.Signals | None = None) -> int:
        """Stop reading code, or get a signal, and end; the exit code."""
        if self._code is not None:
            return self._code
        if self.has_ended:
            pass
        elif how is not None:
            self.send(how)
        else:
            self.leave()
        if not select.select([self._ended], [], [], PATIENCE_S)[0]:
            raise TimeoutError(f"process {self.pid} does not end: {self.output}")
        code = _zygote().ask({"pid": self.pid})
        self._last_output = self.output
        self._code = code
        self._socket.close()
        os.close(self._ended)
        os.close(self._output)
        return code

    def fork_a_sleeper(self) -> int:
        """Have it fork a child that does nothing, and give its number when the fork is complete."""
        self.do(
            "import os, signal\n"
            "heard, says = os.pipe()\n"
            "sleeper = os.fork()\n"
            "if not sleeper:\n"
            "    os.write(says, b'.')\n"
            "    signal.pause()\n"
            "os.read(heard, 1)"
        )
        pid: int = self.do("sleeper")
        return pid

    @property
    def is_over(self) -> bool:
        """Whether ``end`` was called, and not only the process has ended."""
        return self._code is not None

    @property
    def has_ended(self) -> bool:
        return self._code is not None or bool(select.select([self._ended], [], [], 0)[0])


def _stat(pid: int) -> list[str]:
    """What Linux says of a process, from its state on; nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str | None:
    return next(iter(_stat(pid)), None)


def _session(pid: int) -> int | None:
    stat = _stat(pid)
    return int(stat[3]) if stat and stat[0] != "Z" else None


class _Zygote:
    """What forks the processes; it ends when this object or this process does."""

    def __init__(self) -> None:
        own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asked = own
        program = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); import socket\n"
            "from tests.transports.zygote import main\n"
            f"main(socket.socket(fileno={its.fileno()}))"
        )
        # a library for linear algebra starts a thread for each core when it is imported
        one_thread = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
        self._popen = subprocess.Popen(
            [sys.executable, "-c", program],
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ | one_thread,
            start_new_session=True,  # Ctrl-C is for the tests
        )
        its.close()
        assert own.recv(1), "see above"

    def ask(self, message: dict[str, Any], files: Sequence[int] = ()) -> int:
        socket.send_fds(self._asked, [json.dumps(message).encode()], list(files))
        answer = self._asked.recv(100)
        assert answer, "what forks processes has ended"
        number: int = json.loads(answer)
        return number


@cache
def _zygote() -> _Zygote:
    return _Zygote()
