"""Where the processes of a manager's group find each other, and who of them lives."""

from __future__ import annotations

import secrets

import numpy as np

from dpbal.sharedmem import WORD_BYTES, Segment, SharedMemoryError
from dpbal.transports.manager.link import Link
from dpbal.transports.records import SHAPE

HEADER_WORDS = 4
KEY_BYTES = 16

_SHAPE = SHAPE + 1  # no load reports lie here, whatever else looks for some


class Group:
    """A little shared memory: the shape of the group, the key of its manager, and claimed places.

    Attributes:
        segment: In which places are claimed; its name is also the manager's.
        ranks: Number of ranks.
        dispatchers: Number of dispatchers in front of them.
        key: That the manager demands; only processes of this user can read it.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        shape, self.ranks, self.dispatchers, _ = segment.array(np.int64, (HEADER_WORDS,)).tolist()
        self.key = _key(segment).tobytes()
        if shape != _SHAPE:
            raise SharedMemoryError(
                f"shared memory {segment.name} is no manager's of this version of dpbal; "
                "give the address of a manager's exchange, and all processes one version"
            )

    @classmethod
    def create(cls, ranks: int, dispatchers: int) -> Group:
        """Make the memory.

        Raises:
            SharedMemoryError: If the host has no shared memory, or not enough.
        """
        segment = Segment.create("manager", HEADER_WORDS * WORD_BYTES + KEY_BYTES)
        segment.array(np.int64, (HEADER_WORDS,))[:] = [_SHAPE, ranks, dispatchers, 0]
        _key(segment)[:] = np.frombuffer(secrets.token_bytes(KEY_BYTES), np.uint8)
        return cls(segment)

    def link(self, loss: str) -> Link:
        """A connection to the manager; ``loss`` says what it means when that does not answer.

        Raises:
            SharedMemoryError: If there is no manager.
        """
        try:
            return Link(self.segment.name, self.key, loss)
        except (OSError, EOFError) as error:
            raise SharedMemoryError(
                f"the manager {self.segment.name} does not answer ({error}); it exists as long as "
                "the process that made it, on the same host and in the same network namespace"
            ) from None


def find(address: str) -> Group:
    """The memory of a group.

    Raises:
        SharedMemoryError: If there is none, or it holds something else.
    """
    return Group(Segment.attach(address))


def _key(segment: Segment) -> np.ndarray:
    return segment.array(np.uint8, (KEY_BYTES,), HEADER_WORDS * WORD_BYTES)
