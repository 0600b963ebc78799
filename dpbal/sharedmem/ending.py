"""What is done when something ends: an object, its process, or that process's parent."""

from __future__ import annotations

import multiprocessing.util
import os
import select
import threading
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


def end_with_parent(parent: int) -> None:
    """End this process when its parent ends, however that does; now if it has.

    Args:
        parent: Number of its process.
    """
    try:
        ended = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(1)
    if os.getppid() != parent:  # another has its number
        os._exit(1)
    threading.Thread(target=_end_after, args=(ended,), daemon=True).start()


def _end_after(process: int) -> None:
    select.select([process], [], [])
    os._exit(1)


def _unless_forked(process: int, function: Callable[..., None], *args: Any) -> None:
    if process == os.getpid():
        function(*args)
