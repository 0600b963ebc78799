"""Compiles functions once, and keeps the result where an older version's cannot be mistaken for it.

numba notices a change only in the file that defines a function, not in the files of the functions
it calls. So what was compiled is kept in a folder named after the text of all files that define
compiled functions, what these are made of, or the records and memory that they work on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

MARKS = (b"njit", b"intrinsic", b"np.dtype(", b"WORD_BYTES")
"""What shows that compiled functions are made of what a file says."""


def _cache_folder() -> Path:
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        text = source.read_bytes()
        if any(mark in text for mark in MARKS):
            digest.update(text)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "dpbal", "compiled", digest.hexdigest())


FOLDER = Path(os.environ.get("NUMBA_CACHE_DIR") or _cache_folder())
"""Where compiled functions are kept."""

STALE_S = 30 * 24 * 3600.0
"""Folders of other versions go when nothing was written into them for so long."""


def _sweep() -> None:
    for other in FOLDER.parent.iterdir():
        if time.time() - other.stat().st_mtime > STALE_S:
            shutil.rmtree(other, ignore_errors=True)


def is_compiled(name: str) -> bool:
    """Whether this version of a function, ``module.function``, has been compiled here before."""
    return any(FOLDER.rglob(f"{name}-*.nbi"))


def _compile(function: F, counts_references: bool) -> F:
    # numba asks for its folder when a function is decorated; other users of numba keep theirs
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(FOLDER)
    try:
        compiled: F = numba.njit(cache=True, _nrt=counts_references)(function)
    finally:
        numba.config.CACHE_DIR = before
    return compiled


def njit(function: F) -> F:
    """Compile a function that makes no arrays, with the result kept for the next process.

    It counts no references: the caller keeps the arrays, and counting those of the simulator's two
    dozen at every call takes longer than the work.
    """
    return _compile(function, counts_references=False)


def njit_making_arrays(function: F) -> F:
    """Compile a function that makes arrays or calls one that does; it counts references."""
    return _compile(function, counts_references=True)


if not os.environ.get("NUMBA_CACHE_DIR") and not FOLDER.exists() and FOLDER.parent.is_dir():
    _sweep()
