"""A named piece of shared memory that no way of dying leaves for good.

It is a mapped file in the shared-memory file system. Its owner holds a lock on it for as long as it
lives, and the kernel takes that lock away however the owner dies; so a segment whose lock can be
had is nobody's, and the next owner of any segment removes it. ``multiprocessing.shared_memory``
does not do: before Python 3.13 it removes a segment when any process that looked at it ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import secrets
import struct
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from dpbal.errors import DpbalError
from dpbal.sharedmem.ending import when_gone

FOLDER = Path("/dev/shm")
"""Where segments are."""

LINE_BYTES = 128
"""What concurrent writers keep apart: two cache lines, since processors fetch them in pairs."""

WORD_BYTES = 8
"""What is loaded and stored whole, an int64."""

_HEADER = b"dpbal segment 1\n".ljust(LINE_BYTES, b"\0")
_UNFINISHED = ".new"
_UNFINISHED_S = 60.0
_NAME = re.compile(rf"dpbal-[a-z]+-\d+-\d+-[0-9a-f]{{16}}({re.escape(_UNFINISHED)})?")


class SharedMemoryError(DpbalError):
    """Shared memory that the host does not provide, or that is not there."""


class Segment:
    """Zeroed memory that any process of this user can map by its name.

    The owner removes the name with ``close``, when the object is garbage, and when the process
    exits, but not in a child that it forked. Whoever has the memory mapped by then keeps it.

    Attributes:
        name: Unique on the host.
        size: In bytes.
        address: Of the first byte in this process, a multiple of ``LINE_BYTES``; valid as long as
            this object or an array over it.
    """

    def __init__(self, name: str, memory: np.ndarray, lock: int, is_owner: bool) -> None:
        self.name = name
        self._memory = memory[LINE_BYTES:]
        self.size = len(self._memory)
        self.address = int(self._memory.ctypes.data)
        self._lock = lock
        self._end = when_gone(self, _release, FOLDER / name if is_owner else None, lock)
        unlock = weakref.WeakMethod(self._unlock_in_child)
        os.register_at_fork(after_in_child=lambda: (method := unlock()) and method())

    @classmethod
    def create(cls, kind: str, size: int) -> Segment:
        """Make a segment, after removing those of dead owners.

        Args:
            kind: What it is for, in small letters; a part of its name.
            size: In bytes, at least 1.

        Raises:
            SharedMemoryError: If the host has no shared memory, or not enough.
            ValueError: For another ``kind``.
        """
        if not re.fullmatch("[a-z]+", kind):
            raise ValueError(f"a kind of segment has small letters only, got {kind!r}")
        sweep()
        name = f"dpbal-{kind}-{os.getuid()}-{os.getpid()}-{secrets.token_hex(8)}"
        # it gets its name when it is locked and complete: nobody can take it for a dead one's
        unfinished = FOLDER / (name + _UNFINISHED)
        try:
            lock = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _refused(error, size) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.posix_fallocate(lock, 0, LINE_BYTES + size)
            os.pwrite(lock, _HEADER, 0)
            memory = _map(unfinished)
            unfinished.rename(FOLDER / name)
        except BaseException as error:
            _release(unfinished, lock)
            if isinstance(error, OSError):
                raise _refused(error, size) from None
            raise
        return cls(name, memory, lock, is_owner=True)

    @classmethod
    def attach(cls, name: str) -> Segment:
        """Map the segment that another process, or this one, has made.

        Raises:
            SharedMemoryError: If there is none of that name, or one of another version of dpbal.
        """
        if not _NAME.fullmatch(name):
            raise SharedMemoryError(
                f"{name!r} is not the name of shared memory; expected one like "
                "dpbal-loads-1000-4711-0123456789abcdef"
            )
        path = FOLDER / name
        lock = None
        try:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            if os.pread(lock, len(_HEADER), 0) != _HEADER:
                raise SharedMemoryError(
                    f"shared memory {name} was made by another version of dpbal; "
                    "start all processes of a group with one version"
                )
            memory = _map(path)
        except BaseException as error:
            if lock is not None:
                os.close(lock)
            if isinstance(error, OSError):
                raise SharedMemoryError(
                    f"cannot open shared memory {name} in {FOLDER}: {error.strerror}; it exists as "
                    "long as the process that made it, which must have the same user and the same "
                    f"{FOLDER} (containers: share one, as with docker --ipc)"
                ) from None
            raise
        return cls(name, memory, lock, is_owner=False)

    def array(self, dtype: Any, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
        """A view of a part of the memory, ``offset`` bytes from its start."""
        kind = np.dtype(dtype)
        end = offset + kind.itemsize * int(np.prod(shape))
        view: np.ndarray = self._memory[offset:end].view(kind).reshape(shape)
        return view

    def claim(self, place: int) -> bool:
        """Take a numbered place, from 0, for this object until it is closed or its process ends.

        Returns:
            False where another object, here or in another process, has the place.
        """
        try:
            fcntl.fcntl(self._lock, fcntl.F_OFD_SETLK, _place_lock(place))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def is_claimed(self, place: int) -> bool:
        """Whether another object, here or in another process that lives, has a numbered place."""
        found = fcntl.fcntl(self._lock, fcntl.F_OFD_GETLK, _place_lock(place))
        kind: int = struct.unpack_from("h", found)[0]
        return kind != fcntl.F_UNLCK

    @property
    def is_open(self) -> bool:
        """Whether places can be claimed and asked for: not after ``close``, nor in a fork."""
        return self._end.alive

    def close(self) -> None:
        """Give up locks and, as the owner, remove the name; a second call does nothing."""
        self._end()

    def _unlock_in_child(self) -> None:
        if self._end.detach():  # once: a child of the child has other files under this number
            os.close(self._lock)  # or a forked child would hold the lock of a dead parent


def sweep() -> list[str]:
    """Remove what dead owners of this user left, and return the names."""
    swept = []
    for path in FOLDER.glob(f"dpbal-*-{os.getuid()}-*"):
        if _NAME.fullmatch(path.name) and _is_dead(path):
            with contextlib.suppress(OSError):  # another sweep was first
                path.unlink()
                swept.append(path.name)
    return swept


def _map(path: Path) -> np.ndarray:
    # a mapping keeps a copy of its descriptor open: it gets one that no lock hangs on
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return np.frombuffer(mmap.mmap(file, 0), np.uint8)
    finally:
        os.close(file)


def _place_lock(place: int) -> bytes:
    # a lock of the open file: unlike one of the process it excludes objects of one process too
    return struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)


def _release(path: Path | None, lock: int) -> None:
    if path is not None:
        path.unlink(missing_ok=True)
    os.close(lock)


def _is_dead(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # gone, or not ours
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.name.endswith(_UNFINISHED):
            return time.time() - os.fstat(file).st_mtime > _UNFINISHED_S
        return os.pread(file, len(_HEADER), 0) == _HEADER
    except BlockingIOError:
        return False
    finally:
        os.close(file)


def _refused(error: OSError, size: int) -> SharedMemoryError:
    if not FOLDER.is_dir():
        return SharedMemoryError(
            f"no shared memory: there is no folder {FOLDER}; mount a tmpfs there (Linux only)"
        )
    if error.errno == errno.ENOSPC:
        space = os.statvfs(FOLDER)
        return SharedMemoryError(
            f"shared memory is full: {LINE_BYTES + size:,} bytes are needed in {FOLDER} and "
            f"{space.f_bavail * space.f_frsize:,} are free; remove what nobody uses there, or make "
            "it larger (docker: --shm-size)"
        )
    return SharedMemoryError(
        f"no shared memory: cannot make {LINE_BYTES + size:,} bytes in {FOLDER}: {error.strerror}; "
        "it must be a folder that this user may write to"
    )
