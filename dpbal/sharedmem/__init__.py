"""Memory that processes of one host share: segments found by name, and atomics for what is there.

* ``segment.py``: a named piece of shared memory that no way of dying leaves for good.
* ``ending.py``: what is to be done when something, or its process, ends.
* ``atomics.py``: loads, stores and fences on it, for compiled functions; loads numba.
"""

from __future__ import annotations

from dpbal.sharedmem.ending import end_with_parent, when_gone
from dpbal.sharedmem.segment import LINE_BYTES, WORD_BYTES, Segment, SharedMemoryError, sweep

__all__ = [
    "LINE_BYTES",
    "WORD_BYTES",
    "Segment",
    "SharedMemoryError",
    "end_with_parent",
    "sweep",
    "when_gone",
]
