"""Load reports in messages: a rank's end, and a dispatcher's that hears all ranks."""

from __future__ import annotations

import time

import numpy as np

from dpbal.core import LoadTable
from dpbal.transports.records import (
    CLOSED,
    LOOK_NS,
    PUBLISHED_NS,
    RecordPublisher,
    RecordSubscriber,
    record_words,
)
from dpbal.transports.zmq.ear import Ear
from dpbal.transports.zmq.group import REPORTS, Group
from dpbal.transports.zmq.place import Place
from dpbal.transports.zmq.voice import BODY, Voice


class ZmqPublisher(RecordPublisher):
    """A rank's end, which says its newest report to whoever listens."""

    def __init__(self, address: str, rank: int) -> None:
        group = Group.at(address)
        place = Place(group, REPORTS, rank)
        super().__init__(group.dispatchers, place.after_epoch)
        self._voice = Voice(place, self._epoch, self._record, 0)  # which says: another process

    def publish(self) -> None:
        """Let dispatchers see the report and what was received, under the next version.

        Raises:
            ValueError: After ``close``.
        """
        self._voice.say(self._complete(), self._version)

    def close(self) -> None:
        """The rank serves no more; the end of its process says so too, unless it is killed."""
        self._voice.close()


class ZmqSubscriber(RecordSubscriber):
    """A dispatcher's end, which hears the newest report of every rank."""

    def __init__(self, address: str, table: LoadTable) -> None:
        group = Group.at(address)
        group.check_table(table)
        super().__init__(table)
        self._ear = Ear(group, REPORTS, record_words(group.dispatchers))
        self._next_look_ns = 0

    def refresh(self) -> None:
        """Bring the dispatcher's table up to the newest reports; nothing after ``close``."""
        self._ear.hear(self._hear)
        now_ns = time.monotonic_ns()
        if now_ns >= self._next_look_ns:
            self._next_look_ns = now_ns + LOOK_NS
            self._table.set_present((self._states != CLOSED) & ~self._ear.is_silent())

    def close(self) -> None:
        """Look no more."""
        self._ear.close()

    def _hear(self, rank: int, words: np.ndarray) -> None:
        record = words[BODY:].copy()
        if record[PUBLISHED_NS]:
            record[PUBLISHED_NS] = self._ear.here_ns(rank, record.item(PUBLISHED_NS))
        state = self._states[rank]
        self._take(rank, record)
        if self._states[rank] != state:
            self._next_look_ns = 0
