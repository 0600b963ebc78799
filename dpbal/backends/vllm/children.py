"""Forked processes that end with the one they were forked from, and that do not end it."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

PR_SET_PDEATHSIG = 1


class _Forks:
    """What the hooks of one context know; a hook cannot be taken back."""

    def __init__(self) -> None:
        self.is_open = True
        self.parent = os.getpid()

    def before(self) -> None:
        self.parent = os.getpid()

    def after_in_child(self) -> None:
        if not self.is_open:
            return
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.parent:  # it ended before the kernel was told
            os._exit(1)


@contextmanager
def mortal_children() -> Iterator[None]:
    """Processes forked in the context are killed by the kernel when this one ends.

    One that is killed itself cannot end them, and nobody else would find all of them: a forked
    process has the environment of its parent's start, and vLLM's write their names over it.
    """
    forks = _Forks()
    os.register_at_fork(before=forks.before, after_in_child=forks.after_in_child)
    try:
        yield
    finally:
        forks.is_open = False


@cache  # a hook cannot be taken back, and one is enough
def deaf_children() -> None:
    """Have processes that are forked from now on keep their signals to themselves.

    A process that is forked from one with an event loop tells that loop of every signal that it
    receives itself, so that the end of an engine looks like SIGTERM to the server.
    """
    os.register_at_fork(after_in_child=_deaf)


def _deaf() -> None:
    signal.set_wakeup_fd(-1)
