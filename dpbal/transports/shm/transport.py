"""Reports through shared memory, between the processes of one host."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from dpbal.core import LoadTable
from dpbal.sharedmem import Segment, when_gone
from dpbal.transports import places
from dpbal.transports.base import (
    TRANSPORTS,
    Exchange,
    ProcessTransport,
    Subscriber,
    Timing,
    check_group,
)
from dpbal.transports.records import CLOSED, LOOK_NS, RecordPublisher
from dpbal.transports.shm.slots import HEADER_WORDS, Slots, find
from dpbal.transports.shm.vectors import ShmVectors


@TRANSPORTS.register("shm")
@dataclass
class Shm(ProcessTransport):
    """Every rank publishes after every step into shared memory, for other processes of its host.

    Each rank has a slot, the newest report in it wins, and nobody waits for anybody: neither for
    a reader, nor for a writer that was killed in the midst of a report. In the simulator, where a
    look takes no time, it is ``local``.
    """

    @property
    def timing(self) -> Timing:
        """Every step, without delay."""
        return Timing()

    def create(self, ranks: int, dispatchers: int) -> ShmExchange:
        """Make the slots and rings of a group.

        Raises:
            ConfigError: For a group without ranks or dispatchers.
            SharedMemoryError: If the host has no shared memory, or not enough.
        """
        check_group(ranks, dispatchers)
        return ShmExchange(Slots(ranks, dispatchers))

    def publisher(self, address: str, rank: int) -> ShmPublisher:
        """The end of a rank; one at a time, though a rank that was killed may start again.

        Raises:
            SharedMemoryError: If there is nothing at the address, no such rank, or another process
                publishes for it.
        """
        return ShmPublisher(address, rank)

    def subscriber(self, address: str, table: LoadTable) -> ShmSubscriber:
        """The end of a dispatcher, which keeps ``table`` up to date.

        Raises:
            SharedMemoryError: If there is nothing at the address, or the table has another size.
        """
        return ShmSubscriber(address, table)

    def vectors(self, address: str, rank: int) -> ShmVectors:
        """The end of a rank for budget vectors; one at a time, as for reports.

        Raises:
            SharedMemoryError: If there is nothing at the address, no such rank, or it has one.
        """
        return ShmVectors(address, rank)


class ShmExchange(Exchange):
    """The slots and rings of a group; they are there until their owner closes them or ends."""

    def __init__(self, slots: Slots) -> None:
        self._segment = Segment.create("loads", slots.size)
        self._segment.array(np.int64, (HEADER_WORDS,))[:] = slots.header
        self.address = self._segment.name

    def close(self) -> None:
        """Remove them; processes that have found them may go on until they end."""
        self._segment.close()


class ShmPublisher(RecordPublisher):
    """A rank's slot, to write."""

    def __init__(self, address: str, rank: int) -> None:
        from dpbal.transports.shm import seqlock

        segment, slots = find(address)
        places.claim_reports(segment, slots.ranks, rank)
        super().__init__(slots.dispatchers, slots.last_epoch(segment, rank))
        self._segment = segment
        self._slot = segment.address + slots.start(rank)
        self._publish = seqlock.publish
        seqlock.write(self._slot, self._record)
        self._end = when_gone(self, _leave, segment, self._slot)

    def publish(self) -> None:
        """Let dispatchers see the report and what was received, under the next version.

        Raises:
            ValueError: After ``close``.
        """
        if not self._end.alive:
            raise ValueError("the publisher is closed")
        self._version += 1
        now_ns = time.monotonic_ns()
        self._publish(self._slot, self._record, self._epoch, self._version, now_ns)

    def close(self) -> None:
        """The rank serves no more; the end of its process says so too, unless it is killed."""
        self._end()


class ShmSubscriber(Subscriber):
    """The slots of all ranks, to read."""

    def __init__(self, address: str, table: LoadTable) -> None:
        from dpbal.transports.shm import seqlock

        segment, slots = find(address)
        places.check_table(segment, slots.ranks, slots.dispatchers, table)
        self._segment = segment
        self._table = table
        self._kept = np.zeros((3, slots.ranks), np.int64)
        self._next_look_ns = 0
        self._refresh = seqlock.refresh
        self._arguments = (
            segment.address + slots.start(0),
            slots.slot_bytes,
            table.integers,
            table.received_epoch,
            table.received_sequence,
            table.generation,
            np.zeros(slots.record_words, np.int64),
            self._kept,
        )
        self._states_changed = seqlock.STATES_CHANGED
        self._states, self._seen_ns = self._kept[seqlock.SEEN_STATE], self._kept[seqlock.SEEN_NS]
        self._sequences = self._kept[seqlock.SEQUENCE]
        self.refresh()

    @property
    def stuck(self) -> np.ndarray:
        """``bool[ranks]``: ranks that may have a newer report, which the last look could not read.

        Their writer died in the midst of a write, or was kept from running there; the report before
        stands.
        """
        stuck: np.ndarray = self._sequences % 2 == 1
        return stuck

    def refresh(self) -> None:
        """Bring the dispatcher's table up to the newest reports."""
        found = self._refresh(*self._arguments)
        now_ns = time.monotonic_ns()
        if found == self._states_changed or now_ns >= self._next_look_ns:
            self._next_look_ns = now_ns + LOOK_NS
            places.look(self._segment, self._table, self._states, self._seen_ns)
            if found == self._states_changed:
                self._table.update_selectable()

    def ages_s(self) -> np.ndarray:
        """``float64[ranks]``: seconds since each rank's newest report; infinity for none."""
        ages_s = (time.monotonic_ns() - self._seen_ns) / 1e9
        return np.where(self._seen_ns > 0, ages_s, np.inf)

    def close(self) -> None:
        """Look no more."""
        self._segment.close()


def _leave(segment: Segment, slot: int) -> None:
    from dpbal.transports.shm import seqlock

    seqlock.write_state(slot, CLOSED)
    segment.close()
