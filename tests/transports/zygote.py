"""An interpreter that has imported what tests need, and forks processes that run what they say.

It has one thread, no sockets but its own, and no memory of a group: what it forks is as good as an
interpreter of its own, some milliseconds after it was asked for. It ends with whoever started it,
however that ends, and so does everything that it forked.
"""

from __future__ import annotations

import array
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
from typing import Any

SERVE = """
import json, os, sys
def serve(commands):
    names = {"__name__": "__test__"}
    for line in commands:
        code = json.loads(line)
        try:
            compiled = compile(code, "<test>", "eval")
        except SyntaxError:
            compiled = compile(code, "<test>", "exec")
        commands.write(json.dumps(eval(compiled, names)) + "\\n")
        commands.flush()
"""
"""Runs a line of code at a time until nobody sends any; also the program of a new interpreter."""

SERVE_HERE = "import socket; serve(socket.socket(fileno=int(sys.argv[1])).makefile('rw'))"

FILES = 2
"""A process is given its end of the commands, and what its output goes into."""

_PR_SET_PDEATHSIG = 1


def warm_up() -> None:
    """Load what a rank and a dispatcher run, compiled, without a trace of having run it."""
    import numpy as np

    from dpbal.core import VECTOR, LoadTable, Request
    from dpbal.ledger import Ledger
    from dpbal.transports import TRANSPORTS, Shm

    for module in ("dpbal.dispatcher", "zmq"):
        importlib.import_module(module)
    transport = TRANSPORTS.build("shm", {})
    assert isinstance(transport, Shm)
    exchange = transport.create(1, 1)
    table = LoadTable(1)
    publisher = transport.publisher(exchange.address, 0)
    subscriber = transport.subscriber(exchange.address, table)
    publisher.publish()
    subscriber.refresh()
    ledger = Ledger(1)
    ledger.charge(Request(0, 0.0, 1), 0, 0.0)
    ledger.observe(table)
    vectors = transport.vectors(exchange.address, 0)
    vectors.publish(0, 0)
    vectors.read(0, 0, np.zeros(1, VECTOR))
    for end in (vectors, subscriber, publisher, exchange):
        end.close()


def main(asked: socket.socket) -> None:
    """Fork a process, or say how one has ended, as often as asked; in a forked one, serve."""
    warm_up()
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise SystemExit(f"a process with {threads} threads cannot be forked")
    asked.sendall(b"1")
    while True:
        message, files = _receive(asked)
        if message is None:
            return
        if "pid" in message:
            _, status = os.waitpid(message["pid"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            for module in message["modules"]:
                importlib.import_module(module)
            gc.collect()
            gc.freeze()
            parent = os.getpid()
            answer = os.fork()
            if answer == 0:
                asked.close()
                return _become(message, files, parent)
            for file in files:
                os.close(file)
        asked.sendall(json.dumps(answer).encode())


def _receive(asked: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    room = array.array("i", [0] * FILES)
    data, ancillary, _, _ = asked.recvmsg(1 << 20, socket.CMSG_SPACE(room.itemsize * FILES))
    files = array.array("i")
    for _, _, received in ancillary:
        files.frombytes(received)
    return (json.loads(data) if data else None), files.tolist()


def _become(message: dict[str, Any], files: list[int], parent: int) -> None:
    """Serve as a process of its own."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended in between
        os._exit(1)
    os.setsid()  # whatever it starts can be told by its session
    commands, output = files
    nothing = os.open(os.devnull, os.O_RDONLY)
    for file, number in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(file, number)
    os.close(nothing)
    os.close(output)
    os.chdir(message["folder"])
    os.environ.clear()
    os.environ.update(message["environ"])
    if message["is_new"]:
        os.set_inheritable(commands, True)
        program = f"{SERVE}\n{SERVE_HERE}"
        os.execv(sys.executable, [sys.executable, "-c", program, str(commands)])
    names: dict[str, Any] = {}
    exec(SERVE, names)
    names["serve"](socket.socket(fileno=commands).makefile("rw"))
