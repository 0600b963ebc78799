"""Forked processes that do not outlive the one they were forked from, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

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
