"""Who has come to which meeting of a group's ranks, said in its shared memory behind the slots."""

from __future__ import annotations

import time

import numpy as np

from dpbal.sharedmem import LINE_BYTES, WORD_BYTES, Segment
from dpbal.transports.shm.slots import Slots

COME, LEFT, MET = 0, 1, 2
"""Words of a rank's line: to how many meetings it has come, whether it comes no more, and how many
have taken place for it."""

LOOK_S = 0.001
"""Seconds between looks at who has come."""


def memory_bytes(slots: Slots) -> int:
    """Bytes of a group's shared memory with a line for each rank behind the slots."""
    return slots.size + slots.ranks * LINE_BYTES


class Meeting:
    """A rank's look at the meetings of its group; each rank writes only its own line.

    Args:
        segment: Of ``memory_bytes``.
        slots: Its shape.
        rank: Whose end it is.
    """

    def __init__(self, segment: Segment, slots: Slots, rank: int) -> None:
        lines = segment.array(np.int64, (slots.ranks, LINE_BYTES // WORD_BYTES), slots.size)
        self._come, self._left, self._met = lines[:, COME], lines[:, LEFT], lines[:, MET]
        self._segment = segment
        self._rank = rank

    def join(self) -> bool:
        """Whether this process may come to meetings: none has been missed or given up."""
        if self._come[self._rank] > 0 or self.left():
            return False
        self._left[self._rank] = 0
        return True

    def come(self) -> None:
        """This rank comes to its next meeting."""
        self._come[self._rank] += 1

    def met(self) -> None:
        """The meeting that this rank has come to has taken place, for this rank."""
        self._met[self._rank] = self._come[self._rank]

    def leave(self) -> None:
        """This rank comes to no more meetings."""
        self._left[self._rank] = 1

    def wait(self, timeout_s: float) -> bool:
        """Whether all ranks have come to the meeting that this one has come to, in time."""
        end_s = time.monotonic() + timeout_s
        while self.late():
            if self.left() or time.monotonic() > end_s:
                return False
            time.sleep(LOOK_S)
        return True

    def late(self) -> list[int]:
        """Ranks that have not come to the meeting that this one has come to."""
        late: list[int] = (self._come < self._come[self._rank]).nonzero()[0].tolist()
        return late

    def left(self) -> list[int]:
        """Other ranks that come no more, and were not at the meeting that this one has come to."""
        is_missed = self._met < max(self._come[self._rank], 1)
        left: list[int] = ((self._left != 0) & (self._come > 0) & is_missed).nonzero()[0].tolist()
        return [rank for rank in left if rank != self._rank]

    def ended(self) -> list[int]:
        """Other ranks that have come once, and whose process has closed or ended."""
        come: list[int] = self._come.nonzero()[0].tolist()
        return [r for r in come if r != self._rank and not self._segment.is_claimed(r)]
