"""A group with all its ends in this process, over any transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from dpbal.core import LoadTable
from dpbal.transports import Exchange, ProcessTransport, Publisher, Shm, Subscriber
from tests.failure_modes.naive_base import Naive
from tests.transports.groups import LOOK_S, PARAMS, PATIENCE_S, Case

OURS = PARAMS

NAIVE_PATIENCE_S = 0.3
"""What has not arrived by then does not: all of it happens in this process."""


Subject = Case | type[Naive]


def case_of(subject: Subject) -> Case:
    """One of dpbal's transports, or a naive one as if it were."""
    return subject if isinstance(subject, Case) else naive_case(subject)


def naive_case(kind: type[Naive]) -> NaiveCase:
    return NaiveCase(kind.__name__, "", is_at_once=kind.is_at_once, kind=kind)


@dataclass(frozen=True)
class NaiveCase(Case):
    """A naive transport in the place of one of dpbal's.

    Attributes:
        kind: Its class.
    """

    kind: Callable[[], ProcessTransport] = Shm

    def build(self) -> ProcessTransport:
        return self.kind()

    @property
    def code(self) -> str:
        return f"from {self.kind.__module__} import {self.name}; t = {self.name}()"


class Ends:
    """An exchange, a publisher for each rank, and dispatchers' ends.

    Args:
        case: The transport.
        ranks: How many publish.
        dispatchers: Columns of the table.
    """

    def __init__(self, case: Case, ranks: int = 1, dispatchers: int = 1) -> None:
        self.case = case
        self.transport = case.build()
        self.exchange: Exchange = self.transport.create(ranks, dispatchers)
        self.address = self.exchange.address
        self.publishers: list[Publisher] = [
            self.transport.publisher(self.address, rank) for rank in range(ranks)
        ]
        self.table = LoadTable(ranks, dispatchers)
        self._subscribers: list[Subscriber] = []
        self._steps = 0

    def subscribe(self, table: LoadTable | None = None) -> Subscriber:
        made = self.transport.subscriber(self.address, self.table if table is None else table)
        self._subscribers.append(made)
        return made

    def publish(self, *ranks: int, times: int = 1, **fields: int) -> None:
        """Ranks publish at the same time, each so often; where ranks meet, all come."""
        self._steps += 1

        def run(rank: int) -> None:
            own = self.publishers[rank]
            for name, value in fields.items():
                own.report[name] = value
            for _ in range(times if rank in ranks else 0):
                own.publish()
            own.step(self._steps * 40)  # at which they meet

        with ThreadPoolExecutor(len(self.publishers)) as threads:
            list(threads.map(run, range(len(self.publishers))))

    def sees(self, subscriber: Subscriber, condition: Callable[[], bool]) -> bool:
        """Whether it sees something that has been published: at one look, or soon."""
        subscriber.refresh()
        if self.case.is_at_once:
            return condition()
        patience_s = NAIVE_PATIENCE_S if isinstance(self.case, NaiveCase) else PATIENCE_S
        deadline_s = time.monotonic() + patience_s
        while not condition() and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
            subscriber.refresh()
        return condition()

    def close(self) -> None:
        for subscriber in self._subscribers:
            subscriber.close()
        for publisher in self.publishers:
            publisher.close()
        self.exchange.close()


@contextmanager
def ends(subject: Subject, ranks: int = 1, dispatchers: int = 1) -> Iterator[Ends]:
    made = Ends(case_of(subject), ranks, dispatchers)
    try:
        yield made
    finally:
        made.close()
