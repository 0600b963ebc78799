"""How a server ends whose engine has died: every open request hears of it, and so does the shell.

vLLM itself leaves open requests without an answer where its front end is told to stop before it
has noticed, and a server with one front-end process ends with status 0.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from multiprocessing import connection
from typing import Any

import psutil
from vllm.logger import init_logger
from vllm.v1.engine.exceptions import EngineDeadError

LOG = init_logger(f"vllm.{__name__}")  # vLLM shows what is below its own name

LOOK_S = 1.0
"""Between two looks at whether engines are still wanted, as in vLLM."""

FAILURE = 1
"""Exit status of a server whose engine has died."""

Method = Callable[..., Any]


def watching(monitor: Method, deaths: list[str]) -> Method:
    """A watch over the engines of a host that says which of them died, at once.

    Args:
        monitor: vLLM's own, which then stops the others.
        deaths: Takes a line for each.
    """

    @wraps(monitor)
    def watch(self: Any) -> None:
        engines = {engine.sentinel: engine for engine in self.processes}
        ended: list[Any] = []
        while not ended and not self.manager_stopped.is_set():
            ended = connection.wait(engines, timeout=LOOK_S)
        if not self.manager_stopped.is_set():
            for engine in map(engines.__getitem__, ended):
                engine.join(LOOK_S)  # its end may be seen before its status
                if engine.exitcode != 0:
                    deaths.append(_obituary(engine.name, engine.pid, engine.exitcode))
                    LOG.error("dpbal: %s; the server ends", deaths[-1])
        monitor(self)

    return watch


def _obituary(name: str, pid: int | None, status: int | None) -> str:
    how = f"exit status {status}"
    if status is not None and status < 0:
        how = f"killed by {signal.Signals(-status).name}"
    return f"rank {name.rpartition('DP')[2]} died ({name}, process {pid}, {how})"


def failing_requests(shut_down: Method) -> Method:
    """A shutdown of a front end that leaves no request without an answer.

    Those that are still open when the engines are gone, or out of reach, would wait for ever.
    """

    @wraps(shut_down)
    def shut_front_end_down(self: Any, *args: Any, **kwargs: Any) -> None:
        handler = getattr(self, "output_handler", None)
        try:
            shut_down(self, *args, **kwargs)
        finally:
            if handler is not None and not handler.get_loop().is_closed():
                handler.get_loop().call_soon_threadsafe(
                    self.output_processor.propagate_error, EngineDeadError()
                )

    return shut_front_end_down


def finding_others(find: Method) -> Method:
    """A search for the process that has a port, at the end of a server, that leaves its own out.

    Forked engines have it too; vLLM would name one of them as an intruder, and end with an error
    where that one has just ended.
    """

    @wraps(find)
    def find_another(port: int) -> Any:
        try:
            found = find(port)
            is_own = found is not None and os.getpgid(found.pid) == os.getpgrp()
        except (OSError, psutil.Error):
            return None
        return None if is_own else found

    return find_another


def failing(serve: Method, deaths: list[str]) -> Any:
    """A ``vllm serve`` that ends with a status other than 0 after an engine has died."""

    @wraps(serve)
    def serve_and_tell(args: Any) -> None:
        try:
            serve(args)
        except Exception:
            if not deaths:
                raise
        if deaths:
            print(f"dpbal: {'; '.join(deaths)}", file=sys.stderr, flush=True)
            sys.exit(FAILURE)

    return staticmethod(serve_and_tell)
