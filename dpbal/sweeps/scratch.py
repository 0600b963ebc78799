"""Keeps the passing files of a sweep's workers out of shared memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "JOBLIB_TEMP_FOLDER"
SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def scratch(directory: Path) -> Iterator[None]:
    """Let joblib keep its files under a sweep's directory, and remove them, a killed sweep's too.

    Its own choice is shared memory, where they would stay for ever. A killed sweep's semaphores do
    stay there; they bear the number of its process, which is written down, and go with the next
    start. A folder that the user has named is left as it is.
    """
    if VARIABLE in os.environ:
        yield
        return
    folder = (directory / ".joblib").absolute()
    owner = folder / "pid"
    killed = owner.read_text() if owner.exists() else ""
    if killed.isdigit():
        for semaphore in SHARED_MEMORY.glob(f"sem.loky-{killed}-*"):
            semaphore.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    owner.write_text(str(os.getpid()))
    os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)
