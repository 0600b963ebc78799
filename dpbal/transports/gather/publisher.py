"""A rank's end of reports by a collective: when it meets others, and what if they do not come."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from dpbal.errors import DpbalError
from dpbal.sharedmem import Segment, when_gone
from dpbal.transports import places
from dpbal.transports.gather.meeting import Meeting
from dpbal.transports.records import CLOSED, RecordPublisher
from dpbal.transports.shm.slots import find

LOG = logging.getLogger(__name__)

ROOT = 0
"""The rank that is given all records, and hands them on."""

ANEW = (
    "to gather again, start all ranks of the group anew on a new exchange; with transport=shm "
    "ranks need not meet"
)


class GatherError(DpbalError):
    """The ranks of a group cannot meet."""


class Gatherer(Protocol):
    """Ranks that are connected."""

    def gather(self, record: np.ndarray) -> np.ndarray | None:
        """Give this rank's record, and of rank 0 get those of all, ``int64[ranks, words]``.

        Raises:
            RuntimeError: If a rank does not come in time, or has ended.
        """


class GatherPublisher(RecordPublisher):
    """A rank's part in the meetings, and, of rank 0, the slots of all to write.

    Args:
        address: Of the exchange.
        rank: Whose end it is.
        interval_steps: From one meeting to the next.
        timeout_s: The longest to wait for other ranks.
        connect: Takes port, rank, ranks and words of a record, and connects ranks that have come.
    """

    def __init__(
        self,
        address: str,
        rank: int,
        interval_steps: int,
        timeout_s: float,
        connect: Callable[[int, int, int, int], Gatherer],
    ) -> None:
        from dpbal.transports.shm import seqlock

        name, port = parts(address)
        segment, slots = find(name)
        places.claim_reports(segment, slots.ranks, rank)
        meeting = Meeting(segment, slots, rank)
        if not meeting.join():
            segment.close()
            raise GatherError(
                f"rank {rank} at {name} is too late: the ranks have met without this process, and "
                f"none can join them later; {ANEW}"
            )
        super().__init__(slots.dispatchers, slots.last_epoch(segment, rank))
        self._slots = [segment.address + slots.start(r) for r in range(slots.ranks)]
        seqlock.write(self._slots[rank], self._record)
        self._write, self._write_state = seqlock.write, seqlock.write_state
        self._segment, self._meeting, self._rank = segment, meeting, rank
        self._interval_steps, self._timeout_s = interval_steps, timeout_s
        self._connect = partial(connect, port, rank, slots.ranks, slots.record_words)
        self._group: Gatherer | None = None
        self._meets = True
        self._outgoing = self._record.copy()
        self._handed_on = np.zeros((slots.ranks, slots.record_words), np.int64)
        self._end = when_gone(self, _leave, segment, self._slots[rank], meeting)

    def publish(self) -> None:
        """Say this at the next meeting, under the next version.

        Raises:
            ValueError: After ``close``.
        """
        self._require_open()
        self._outgoing[:] = self._complete()

    def step(self, step: int) -> None:
        """Meet, at every ``interval_steps``-th step; wait for others no longer than the time-out.

        Raises:
            ValueError: After ``close``.
        """
        if step % self._interval_steps == 0:
            self._meet(f"at step {step}")

    def rest(self) -> None:
        """Meet.

        Raises:
            ValueError: After ``close``.
        """
        self._meet("at the end of all work")

    def close(self) -> None:
        """The rank serves no more, and meets no more; a second call does nothing."""
        self._group = None
        self._end()

    def _require_open(self) -> None:
        if not self._end.alive:
            raise ValueError("the publisher is closed")

    def _meet(self, when: str) -> None:
        self._require_open()
        if not self._meets:
            return
        self._meeting.come()
        try:
            if self._meeting.left():
                raise GatherError("others meet no more")
            if self._group is None:
                if not self._meeting.wait(self._timeout_s):  # who is late, torch would not say
                    raise GatherError("not all ranks have come")
                self._group = self._connect()
            records = self._group.gather(self._outgoing)
            self._meeting.met()
        except (RuntimeError, GatherError) as error:  # torch says by RuntimeError what failed
            self._stop(when, error)
            return
        if records is not None:
            self._hand_on(records)

    def _hand_on(self, records: np.ndarray) -> None:
        """Write what is new into the slots, for dispatchers to read."""
        for rank in (records != self._handed_on).any(axis=1).nonzero()[0].tolist():
            self._write(self._slots[rank], records[rank])
            # it may have closed since it was gathered, and that was its last word
            if rank != self._rank and not self._segment.is_claimed(rank):
                self._write_state(self._slots[rank], CLOSED)
        self._handed_on[:] = records

    def _stop(self, when: str, error: Exception) -> None:
        """Meet no more, so that no step waits again, and say why."""
        self._meets = False
        meeting = self._meeting
        meeting.leave()
        ended, left = meeting.ended(), meeting.left()
        late = sorted(set(meeting.late()) - set(ended) - set(left))
        reasons = []
        if ended:
            reasons.append(f"{_ranks(ended)} closed or ended")
        if late:
            reasons.append(f"{_ranks(late)} did not come (timeout_s is {self._timeout_s:g})")
        if left and not reasons:
            reasons.append(f"{_ranks(left)} met no more")
        LOG.error(
            "rank %d gathers reports no more: %s, %s; dispatchers go on with the reports they "
            "have; %s",
            self._rank,
            when,
            " and ".join(reasons) or next(iter(str(error).splitlines()), type(error).__name__),
            ANEW,
        )
        self._group = None


def _leave(segment: Segment, slot: int, meeting: Meeting) -> None:
    from dpbal.transports.shm import seqlock

    meeting.leave()
    segment.close()  # before the state: who writes it after us looks at this
    seqlock.write_state(slot, CLOSED)


def parts(address: str) -> tuple[str, int]:
    """Name of the shared memory, and port of the store."""
    name, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise GatherError(
            f"{address!r} is not the address of a gather; expected one like "
            "dpbal-loads-1000-4711-0123456789abcdef:29500, as its exchange gives it"
        )
    return name, int(port)


def _ranks(ranks: list[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
