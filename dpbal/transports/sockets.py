"""Folders for the sockets of a group, which no way of dying leaves for good."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
import weakref
from pathlib import Path

from dpbal.errors import DpbalError
from dpbal.sharedmem import when_gone
from dpbal.transports.base import Exchange

LOCK = "lock"

_UNFINISHED_S = 60.0
_NAME = re.compile(r"\.?dpbal-[a-z]+-[a-z0-9_]{8}")


class SocketError(DpbalError):
    """Sockets that the host does not provide, or that are not there."""


class Sockets(Exchange):
    """A folder for the sockets of one group, which nobody but its user may enter.

    It goes with ``close``, when the object is garbage, and when its process exits; after a process
    that was killed, with the next one that anybody of this user makes.

    Args:
        folder: Where it is.
        lock: In it, which says that its owner lives.
    """

    def __init__(self, folder: Path, lock: Lock) -> None:
        self.address = str(folder)
        self._end = when_gone(self, _remove, folder, lock)

    @classmethod
    def create(cls, base: Path, kind: str) -> Sockets:
        """Make one in ``base``, after removing those of dead owners.

        Args:
            base: Where all of this user are.
            kind: What it is for, in small letters; a part of its name.

        Raises:
            SocketError: If there can be none.
        """
        sweep(base)
        # it gets its name when it is locked: nobody can take it for a dead one's
        try:
            unfinished = Path(tempfile.mkdtemp(prefix=f".dpbal-{kind}-", dir=base))
            lock = Lock(unfinished / LOCK)
            return cls(unfinished.rename(base / unfinished.name[1:]), lock)
        except OSError as error:
            raise SocketError(
                f"cannot make a folder for sockets in {base}: {error.strerror}; "
                "it must be a folder that this user may write to (TMPDIR=... gives another)"
            ) from None

    def close(self) -> None:
        """Remove it; a second call does nothing."""
        self._end()


class Lock:
    """A file that one object of all processes has locked, until it lets go or its process ends.

    The kernel takes the lock away however the process dies, and a forked child does not get it.

    Args:
        path: Of the file, which is made where there is none.

    Raises:
        BlockingIOError: If another object has it.
        OSError: If there can be no such file.
    """

    def __init__(self, path: Path) -> None:
        self._file: int | None = None
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise
        unlock = weakref.WeakMethod(self.close)
        os.register_at_fork(after_in_child=lambda: (method := unlock()) and method())

    @property
    def number(self) -> int:
        """What was last put into the file, whoever had it; 0 in a new one."""
        assert self._file is not None
        return int(os.pread(self._file, 32, 0) or b"0")

    @number.setter
    def number(self, number: int) -> None:
        assert self._file is not None
        os.pwrite(self._file, b"%032d" % number, 0)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let go; a second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def sweep(base: Path) -> None:
    """Remove what dead owners of this user left in ``base``."""
    for pattern in ("dpbal-*", ".dpbal-*"):
        for left in base.glob(pattern):
            with contextlib.suppress(OSError):  # another sweep was first
                if _NAME.fullmatch(left.name) and _is_dead(left):
                    shutil.rmtree(left, ignore_errors=True)


def _is_dead(folder: Path) -> bool:
    found = folder.lstat()
    is_unfinished = folder.name.startswith(".")
    if found.st_uid != os.getuid():
        return False
    if is_unfinished and time.time() - found.st_mtime < _UNFINISHED_S:
        return False  # it may not be locked yet
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # half made or half removed; or nothing of ours
        return is_unfinished
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _remove(folder: Path, lock: Lock) -> None:
    # what is left of it if this is killed has the name of one that is not finished
    hidden = folder.with_name(f".{folder.name}")
    with contextlib.suppress(OSError):
        folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)
    lock.close()
