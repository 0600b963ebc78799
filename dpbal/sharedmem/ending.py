"""Calls a function once when something, or the process that has it, ends."""

from __future__ import annotations

import multiprocessing.util
import os
import weakref
from collections.abc import Callable
from typing import Any


def when_gone(
    thing: object, function: Callable[..., None], *args: Any
) -> weakref.finalize[Any, Any]:
    """Arrange that a function is called once: when asked, or when ``thing`` or the process ends.

    A process that is killed ends without it, and so does a forked child that has only inherited
    ``thing``.
    """
    end = weakref.finalize(thing, _unless_forked, os.getpid(), function, *args)
    # multiprocessing ends its forked children without what other processes do at exit
    multiprocessing.util.Finalize(None, end, exitpriority=0)
    return end


def _unless_forked(process: int, function: Callable[..., None], *args: Any) -> None:
    if process == os.getpid():
        function(*args)
