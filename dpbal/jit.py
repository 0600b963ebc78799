"""Compiles functions once, and keeps the result where an older version's cannot be mistaken for it.

numba notices a change only in the file that defines a function, not in the files of the functions
it calls. So what was compiled is kept in a folder named after the text of all files that define
compiled functions or the records that these work on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def _cache_folder() -> Path:
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        text = source.read_bytes()
        if b"njit" in text or b"np.dtype(" in text:
            digest.update(text)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "dpbal", "compiled", digest.hexdigest())


if not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = str(_cache_folder())


def is_compiled(name: str) -> bool:
    """Whether this version of a function, ``module.function``, has been compiled here before."""
    return any(Path(numba.config.CACHE_DIR).rglob(f"{name}-*.nbi"))


def njit(function: F) -> F:
    """Compile a function that makes no arrays, with the result kept for the next process.

    It counts no references: the caller keeps the arrays, and counting those of the simulator's two
    dozen at every call takes longer than the work.
    """
    compiled: F = numba.njit(cache=True, _nrt=False)(function)
    return compiled


def njit_making_arrays(function: F) -> F:
    """Compile a function that makes arrays or calls one that does; it counts references."""
    compiled: F = numba.njit(cache=True)(function)
    return compiled
