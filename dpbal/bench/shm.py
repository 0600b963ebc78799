"""Microseconds of publishing a report and of reading all ranks', beside a manager's dictionary."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from dpbal.core import LoadTable
from dpbal.transports import Shm

TARGET_US = 5.0
"""Most microseconds p50, of a publication and of a read."""

TARGET_RANKS = 8

SHM, MANAGER = "shm", "multiprocessing.Manager"
PUBLISH, READ_NEW, READ_SAME = "publish", "read, all new", "read, none new"

DESCRIPTION = (
    "ranks publish in one process, each one report in turn; then the dispatcher in another reads "
    "all of them, and once more with nothing new. The manager's dictionary holds the same numbers"
)


@dataclass(frozen=True)
class ShmRow:
    """What one operation took.

    Attributes:
        transport: What was measured.
        operation: What it did.
        ranks: Number of ranks; a publication is of one.
        calls: How many were timed, over all repeats.
        p50_us: Median over the repeats of each repeat's p50.
        p50_us_min: Smallest p50 of a repeat.
        p50_us_max: Largest p50 of a repeat.
        p99_us: Median over the repeats of each repeat's p99.
        share_of_manager: ``p50_us`` over the manager's in the same run.
        target_us: Most that ``p50_us`` should be, or None where there is no target.
    """

    transport: str
    operation: str
    ranks: int
    calls: int
    p50_us: float
    p50_us_min: float
    p50_us_max: float
    p99_us: float
    share_of_manager: float
    target_us: float | None


class _Ends(NamedTuple):
    """How to reach the ranks' process, and to read what they published."""

    ranks: Connection
    read: dict[str, Callable[[], object]]


def measure(ranks: int, repeats: int, rounds: int) -> list[ShmRow]:
    """Time both transports in turn, in each repeat ``rounds`` times all ranks and two reads."""
    operations = (PUBLISH, READ_NEW, READ_SAME)
    elapsed_ns: dict[tuple[str, str], list[list[int]]] = {
        (name, what): [] for name in (SHM, MANAGER) for what in operations
    }
    with _group(ranks) as ends:
        for transport in ends.read:  # compile, connect
            _round(ends, transport, 10)
        for _ in range(repeats):
            for transport in ends.read:
                for operation, took in zip(
                    operations, _round(ends, transport, rounds), strict=True
                ):
                    elapsed_ns[transport, operation].append(took)
    p50_us = {key: [float(np.median(r)) / 1e3 for r in runs] for key, runs in elapsed_ns.items()}
    rows = []
    for (transport, operation), runs in elapsed_ns.items():
        own = p50_us[transport, operation]
        has_target = transport == SHM and ranks == TARGET_RANKS
        rows.append(
            ShmRow(
                transport,
                operation,
                ranks,
                sum(len(run) for run in runs),
                median(own),
                min(own),
                max(own),
                median(float(np.quantile(run, 0.99)) / 1e3 for run in runs),
                median(own) / median(p50_us[MANAGER, operation]),
                TARGET_US if has_target else None,
            )
        )
    return rows


def _round(ends: _Ends, transport: str, rounds: int) -> tuple[list[int], list[int], list[int]]:
    read = ends.read[transport]
    published: list[int] = []
    new: list[int] = []
    same: list[int] = []
    for _ in range(rounds):
        ends.ranks.send(transport)
        published += ends.ranks.recv()
        for took in (new, same):
            before_ns = perf_counter_ns()
            read()
            took.append(perf_counter_ns() - before_ns)
    return published, new, same


@contextmanager
def _group(ranks: int) -> Iterator[_Ends]:
    context = multiprocessing.get_context("spawn")
    exchange = Shm().create(ranks, 1)
    try:
        with context.Manager() as manager:
            shared = manager.dict()
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_publish_when_told, args=(exchange.address, ranks, shared, theirs)
            )
            process.start()
            theirs.close()
            subscriber = Shm().subscriber(exchange.address, LoadTable(ranks))
            try:
                yield _Ends(ours, {SHM: subscriber.refresh, MANAGER: shared.copy})
            finally:
                ours.close()  # which ends the process
                process.join()
    finally:
        exchange.close()


def _publish_when_told(
    address: str, ranks: int, shared: MutableMapping[int, list[Any]], told: Connection
) -> None:
    """Be all ranks: publish once for each when a message comes, and answer what that took."""
    publishers = [Shm().publisher(address, rank) for rank in range(ranks)]
    while True:
        try:
            transport = told.recv()
        except EOFError:
            return
        elapsed_ns = []
        for rank, publisher in enumerate(publishers):
            publisher.report["running"] += 1
            numbers = [*publisher.report[0].tolist(), 0, 0]
            before_ns = perf_counter_ns()
            if transport == SHM:
                publisher.publish()
            else:
                shared[rank] = numbers
            elapsed_ns.append(perf_counter_ns() - before_ns)
        told.send(elapsed_ns)
