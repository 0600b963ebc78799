"""Microseconds of publishing and reading through shared memory, one call after the other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np

from dpbal.core import VECTOR, LoadTable
from dpbal.transports import Shm, Vectors

TARGET_US = 5.0
"""Most microseconds p50, of a publication and of a read."""

TARGET_RANKS = 8

REPORTS, VECTORS = "load reports", "budget vectors"
CARRIED = (REPORTS, VECTORS)
PUBLISH, READ_NEW, READ_SAME = "publish", "read, all new", "read, none new"

DESCRIPTION = (
    "ranks publish in one process, each one report in turn; then the dispatcher in another reads "
    "all of them, and once more with nothing new. "
    "Budget vectors: the first rank reads those of all for a step, and asks for the next in vain"
)


@dataclass(frozen=True)
class ShmRow:
    """What one operation took.

    Attributes:
        carried: What was published.
        operation: What was done.
        ranks: Number of ranks; a publication is of one.
        calls: How many were timed, over all repeats.
        p50_us: Median over the repeats of each repeat's p50.
        p50_us_min: Smallest p50 of a repeat.
        p50_us_max: Largest p50 of a repeat.
        p99_us: Median over the repeats of each repeat's p99.
        target_us: Most that ``p50_us`` should be, or None where there is no target.
    """

    carried: str
    operation: str
    ranks: int
    calls: int
    p50_us: float
    p50_us_min: float
    p50_us_max: float
    p99_us: float
    target_us: float | None


class _Ends(NamedTuple):
    """How to reach the ranks' process, and to read what they published.

    Attributes:
        ranks: Takes what is to be published, and gives the nanoseconds of each publication.
        refresh: How to read reports.
        first: The end of the first rank for budget vectors, which is in this process.
        vectors: Room for those of all ranks.
        steps: That ranks have published so far.
    """

    ranks: Connection
    refresh: Callable[[], object]
    first: Vectors
    vectors: np.ndarray
    steps: list[int]

    def looks(self, carried: str) -> tuple[Callable[[], object], Callable[[], object]]:
        """A look at what has just been published, and one with nothing new."""
        if carried == REPORTS:
            return self.refresh, self.refresh
        read, step = self.first.read, self.steps[-1]
        return partial(read, 0, step, self.vectors), partial(read, 0, step + 1, self.vectors)


def measure(ranks: int, repeats: int, rounds: int) -> list[ShmRow]:
    """Time both in turn, in each repeat ``rounds`` times all ranks and two reads."""
    operations = (PUBLISH, READ_NEW, READ_SAME)
    elapsed_ns: dict[tuple[str, str], list[list[int]]] = {
        (carried, what): [] for carried in CARRIED for what in operations
    }
    with _group(ranks) as ends:
        for carried in CARRIED:  # compile, connect
            _round(ends, carried, 10)
        for _ in range(repeats):
            for carried in CARRIED:
                took_ns = _round(ends, carried, rounds)
                for operation, took in zip(operations, took_ns, strict=True):
                    elapsed_ns[carried, operation].append(took)
    p50_us = {key: [float(np.median(r)) / 1e3 for r in runs] for key, runs in elapsed_ns.items()}
    rows = []
    for (carried, operation), runs in elapsed_ns.items():
        own = p50_us[carried, operation]
        rows.append(
            ShmRow(
                carried,
                operation,
                ranks,
                sum(len(run) for run in runs),
                median(own),
                min(own),
                max(own),
                median(float(np.quantile(run, 0.99)) / 1e3 for run in runs),
                TARGET_US if ranks == TARGET_RANKS else None,
            )
        )
    return rows


def _round(ends: _Ends, carried: str, rounds: int) -> tuple[list[int], list[int], list[int]]:
    published: list[int] = []
    new: list[int] = []
    same: list[int] = []
    for _ in range(rounds):
        ends.ranks.send(carried)
        published += ends.ranks.recv()
        if carried == VECTORS:  # the first rank is here
            ends.steps.append(len(ends.steps))
            published.append(_took_ns(partial(ends.first.publish, 0, ends.steps[-1])))
        for look, took in zip(ends.looks(carried), (new, same), strict=True):
            took.append(_took_ns(look))
    return published, new, same


def _took_ns(call: Callable[[], object]) -> int:
    before_ns = perf_counter_ns()
    call()
    return perf_counter_ns() - before_ns


@contextmanager
def _group(ranks: int) -> Iterator[_Ends]:
    context = multiprocessing.get_context("spawn")
    exchange = Shm().create(ranks, 1)
    try:
        ours, theirs = context.Pipe()
        process = context.Process(target=_publish_when_told, args=(exchange.address, ranks, theirs))
        process.start()
        theirs.close()
        subscriber = Shm().subscriber(exchange.address, LoadTable(ranks))
        first = Shm().vectors(exchange.address, 0)
        try:
            yield _Ends(ours, subscriber.refresh, first, np.zeros(ranks, VECTOR), [])
        finally:
            ours.close()  # which ends the process
            process.join()
    finally:
        exchange.close()


def _publish_when_told(address: str, ranks: int, told: Connection) -> None:
    """Be all ranks: publish once for each when a message comes, and answer what that took."""
    publishers = [Shm().publisher(address, rank) for rank in range(ranks)]
    others = [Shm().vectors(address, rank) for rank in range(1, ranks)]
    steps = count()
    while True:
        try:
            carried = told.recv()
        except EOFError:
            return
        publish: list[Callable[[], object]] = []
        if carried == VECTORS:
            step = next(steps)
            publish = [partial(other.publish, 0, step) for other in others]
        else:
            for publisher in publishers:
                publisher.report["running"] += 1
                publish.append(publisher.publish)
        told.send([_took_ns(one) for one in publish])
