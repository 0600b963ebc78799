"""Shared memory as others make it, each with the failure that it led to."""

from __future__ import annotations

import mmap
import os
from pathlib import Path


class LeftForever:
    """SGLang #40723: a file in ``/dev/shm`` that only an end in good order removes."""

    def __init__(self, folder: Path, size: int) -> None:
        self.path = folder / f"naive_loads_{os.getpid()}.shm"
        with self.path.open("wb") as file:
            file.truncate(size)

    def close(self) -> None:
        self.path.unlink()


class TakenWhenWritten:
    """SGLang #30602, before ``posix_fallocate``: the size was a promise until it is written."""

    def __init__(self, folder: Path, size: int) -> None:
        file = os.open(folder / "naive_loads", os.O_RDWR | os.O_CREAT)
        os.ftruncate(file, size)
        self.memory = mmap.mmap(file, size)
        os.close(file)

    def fill(self) -> None:
        self.memory[:] = b"\1" * len(self.memory)
