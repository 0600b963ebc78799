"""Puts a rank's record into a manager's list, later if that is not possible now."""

from __future__ import annotations

import threading
from contextlib import suppress

import numpy as np

from dpbal.transports.manager.link import LOADS, PATIENCE_S, Late, Link

REST_S = 0.05
"""Seconds between attempts to send what could not be sent."""


def get(link: Link) -> list[list[int]]:
    """All ranks' records."""
    link.lock()
    loads: list[list[int]] = link.call(LOADS, "__getattribute__", "loads")
    link.unlock()
    return loads


def replace(link: Link, rank: int, record: list[int]) -> None:
    """Put a rank's record into the list."""
    link.lock()
    loads = link.call(LOADS, "__getattribute__", "loads")
    loads[rank] = record
    link.call(LOADS, "__setattr__", "loads", loads)
    link.unlock()


class Sender:
    """A rank's records on their way.

    When one cannot be sent, a thread tries again until the newest has been: a rank that has come
    to rest would otherwise be known for as busy as it was. Until then no step waits.

    Args:
        link: To the manager, of nobody else.
        rank: Whose records.
    """

    def __init__(self, link: Link, rank: int) -> None:
        self._link, self._rank = link, rank
        self._mutex = threading.Lock()  # of the next two
        self._newest: list[int] = []
        self._retries: threading.Thread | None = None
        self._ends = threading.Event()

    def send(self, record: np.ndarray) -> None:
        """Send a record now, waiting for no more than ``PATIENCE_S``, or later."""
        with self._mutex:
            self._newest = record.tolist()
            if self._retries is not None:
                return
        try:
            with self._link.calls():
                replace(self._link, self._rank, self._newest)
        except Late:
            self._retries = threading.Thread(target=self._retry, daemon=True)
            self._retries.start()

    def close(self, record: np.ndarray) -> None:
        """Send the last record, if that is possible now."""
        self._ends.set()
        retries = self._retries
        if retries is not None:
            retries.join(2 * PATIENCE_S)
        if retries is None or not retries.is_alive():
            with suppress(Late), self._link.calls():
                replace(self._link, self._rank, record.tolist())
        self._link.close()

    def _retry(self) -> None:
        while not self._ends.wait(REST_S):
            record = self._newest
            with suppress(Late, RuntimeError):  # whatever it was, the report is to be sent
                with self._link.calls(is_patient=True):
                    replace(self._link, self._rank, record)
                with self._mutex:
                    if self._newest is record:
                        self._retries = None
                        return
