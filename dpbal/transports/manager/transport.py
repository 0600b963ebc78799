"""Reports in a list that a process of ``multiprocessing.Manager`` keeps behind a lock."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from dpbal.core import LoadTable
from dpbal.sharedmem import Segment, when_gone
from dpbal.transports import places
from dpbal.transports.base import TRANSPORTS, Exchange, ProcessTransport, Timing, check_group
from dpbal.transports.manager.group import Group, find
from dpbal.transports.manager.link import Late, Setup, start, stop
from dpbal.transports.manager.sender import Sender, get, replace
from dpbal.transports.manager.vectors import ManagerVectors
from dpbal.transports.records import (
    CLOSED,
    EPOCH,
    LOOK_NS,
    STATE,
    RecordPublisher,
    RecordSubscriber,
    record_words,
)

DELAY_S = 0.0007
"""Seconds from publishing to visible with 8 ranks, p50 of ``dpbal-bench transport``."""


@TRANSPORTS.register("manager")
@dataclass
class Manager(ProcessTransport):
    """Every rank publishes after every step into a list that the process of a manager keeps.

    That was the way of SGLang's PR #7379. To publish, a rank takes the manager's lock, gets the
    list of all ranks' records, puts its own into it, sets the list, and gives the lock back: five
    messages there and back, two of them with all records. A dispatcher that looks does it in three.
    It is here to be compared with, and wins nothing: all wait for one lock, and the more ranks
    there are, the longer.

    Nobody waits longer than a second for one that was stopped with the lock in its hands, or for
    the manager's process, and then no more until that is over, but for a second every five if the
    connection was lost: a rank's newest report is sent then, and a dispatcher goes on with what it
    has. One that is killed gives the lock back.

    Reference: https://github.com/sgl-project/sglang/pull/7379
    """

    @property
    def timing(self) -> Timing:
        """Every step, with the delay of a group of 8 ranks that do not wait for each other."""
        return Timing(delay_s=DELAY_S)

    def create(self, ranks: int, dispatchers: int) -> ManagerExchange:
        """Start the process of a group.

        Raises:
            ConfigError: For a group without ranks or dispatchers.
            SharedMemoryError: If the host has no shared memory, which shows who is alive, or the
                process cannot start.
        """
        check_group(ranks, dispatchers)
        return ManagerExchange(ranks, dispatchers)

    def publisher(self, address: str, rank: int) -> ManagerPublisher:
        """The end of a rank; one at a time, though a rank that was killed may start again.

        Raises:
            SharedMemoryError: If there is nothing at the address, no such rank, or another process
                publishes for it.
        """
        return ManagerPublisher(address, rank)

    def subscriber(self, address: str, table: LoadTable) -> ManagerSubscriber:
        """The end of a dispatcher, which keeps ``table`` up to date.

        Raises:
            SharedMemoryError: If there is nothing at the address, or the table has another size.
        """
        return ManagerSubscriber(address, table)

    def vectors(self, address: str, rank: int) -> ManagerVectors:
        """The end of a rank for budget vectors; one at a time, as for reports.

        Raises:
            SharedMemoryError: If there is nothing at the address, no such rank, or it has one.
        """
        return ManagerVectors(address, rank)


class ManagerExchange(Exchange):
    """The process of a group; it is there until its owner closes it or ends."""

    def __init__(self, ranks: int, dispatchers: int) -> None:
        group = Group.create(ranks, dispatchers)
        self._segment = group.segment
        self.address = group.segment.name
        words = record_words(dispatchers)
        setup = Setup(os.getpid(), self.address, group.key.hex(), ranks, words)
        try:
            self._end = when_gone(self, stop, start(setup))
        except BaseException:
            self._segment.close()
            raise

    def close(self) -> None:
        """End it; publishers and subscribers that have found it say so once, and go on."""
        self._segment.close()
        self._end()


class ManagerPublisher(RecordPublisher):
    """A rank's record in the list."""

    def __init__(self, address: str, rank: int) -> None:
        group = find(address)
        places.claim_reports(group.segment, group.ranks, rank)
        self._link = link = group.link(f"what rank {rank} reports is kept back")
        with link.demanded():
            super().__init__(group.dispatchers, after_epoch=get(link)[rank][EPOCH])
            replace(link, rank, self._record.tolist())
        self._sender = Sender(link, rank)
        self._end = when_gone(self, _leave, self._sender, group.segment, self._record)

    def publish(self) -> None:
        """Let dispatchers see the report and what was received, under the next version.

        Raises:
            ValueError: After ``close``.
        """
        if not self._end.alive:
            raise ValueError("the publisher is closed")
        self._sender.send(self._complete())

    def close(self) -> None:
        """The rank serves no more; the end of its process says so too, unless it is killed."""
        self._end()


class ManagerSubscriber(RecordSubscriber):
    """The list of all ranks' records, to copy."""

    def __init__(self, address: str, table: LoadTable) -> None:
        group = find(address)
        places.check_table(group.segment, group.ranks, group.dispatchers, table)
        super().__init__(table)
        self._segment = group.segment
        self._link = group.link("a dispatcher goes on with the reports it has")
        self._records = [[0] * record_words(group.dispatchers)] * group.ranks
        self._next_look_ns = 0
        self.refresh()

    def refresh(self) -> None:
        """Bring the dispatcher's table up to the newest reports."""
        states = self._states.copy()
        with suppress(Late), self._link.calls():
            records = get(self._link)
            for rank, (record, known) in enumerate(zip(records, self._records, strict=True)):
                if record != known:
                    self._take(rank, np.array(record, np.int64))
            self._records = records
        now_ns = time.monotonic_ns()
        if now_ns >= self._next_look_ns or (states != self._states).any():
            self._next_look_ns = now_ns + LOOK_NS
            places.look(self._segment, self._table, self._states, self._published_ns)

    def close(self) -> None:
        """Look no more."""
        self._link.close()
        self._segment.close()


def _leave(sender: Sender, segment: Segment, record: np.ndarray) -> None:
    record[STATE] = CLOSED
    sender.close(record)
    segment.close()
