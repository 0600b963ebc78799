"""One transport with one number of ranks: all that is timed of it, in a process of its own."""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import closing
from random import Random

import numpy as np

from dpbal.bench.transport_case import (
    AGE,
    DISPATCH,
    IDLE,
    LAG,
    LOOK,
    MEET_OTHER,
    MEET_PACED,
    MEET_ROOT,
    PACE,
    PUBLISH,
    PUBLISH_PACED,
    RATE,
    READ_NEW,
    READ_SAME,
    Case,
    Spread,
    transport_of,
)
from dpbal.bench.transport_ranks import Ranks, took_us
from dpbal.composition import compose
from dpbal.core import LoadTable, Request
from dpbal.errors import DpbalError
from dpbal.parts import build_dispatcher
from dpbal.sharedmem import end_with_parent
from dpbal.transports import Gather, ProcessTransport, Shm, Subscriber

BALANCER = "minimum_tokens"
HELD_PER_RANK = 8
"""Requests outstanding for each rank; the oldest ends."""

BETWEEN_DECISIONS_S = 0.005
"""Mean, at random."""

IN_A_ROW = 3
"""Publications of a rank when it is its turn."""

ARRIVE_S = 0.002
"""From the last publication to the look at all of them."""

FEWEST_ROUNDS, MOST_ROUNDS = 3, 100
"""Even if that takes longer; and so many until all reports came in time once."""

MEET_S = 60.0
"""Longest wait for the first reports of all ranks, and for ranks that meet."""


def measure(case: Case) -> dict[str, Spread]:
    """Time a transport; to be called in a process without threads, which it forks.

    Raises:
        DpbalError: If ranks cannot publish, or their reports do not arrive.
    """
    logging.disable(logging.ERROR)  # what goes wrong is said once, by this process
    transport = transport_of(case.overrides)
    _load(transport)
    # before the transport starts threads
    with Ranks(case.ranks) as ranks, closing(transport.create(case.ranks, 1)) as exchange:
        end_with_parent(os.getppid())
        for rank in range(case.ranks):  # one by one, as a manager cannot answer many at once
            ranks.ask_one(rank, "open", transport, exchange.address)
        table = LoadTable(case.ranks)
        with closing(transport.subscriber(exchange.address, table)) as subscriber:
            return _Cell(case, transport, ranks, subscriber, table).measure()


def _load(transport: ProcessTransport) -> None:
    """Import and compile what ranks run, so that they share it."""
    if isinstance(transport, Gather):
        importlib.import_module("torch.distributed")
    importlib.import_module("zmq")
    shm = Shm()
    with closing(shm.create(1, 1)) as exchange:
        publisher = shm.publisher(exchange.address, 0)
        publisher.publish()
        shm.subscriber(exchange.address, LoadTable(1)).close()
        publisher.close()


class _Cell:
    """A group whose ranks are open."""

    def __init__(
        self,
        case: Case,
        transport: ProcessTransport,
        ranks: Ranks,
        subscriber: Subscriber,
        table: LoadTable,
    ) -> None:
        self._case, self._ranks = case, ranks
        self._subscriber, self._table = subscriber, table
        self._meet_steps = transport.timing.interval_steps if transport.is_collective else 0
        self._random = Random(case.seed)
        config = compose(f"balancer={BALANCER}", f"group.ranks={case.ranks}")
        self._dispatcher = build_dispatcher(config, table, 0)
        self._held: deque[int] = deque()
        self._requests = 0

    def measure(self) -> dict[str, Spread]:
        samples: dict[str, list[list[float]]] = defaultdict(list)
        self._first_reports()
        for repeat in range(-1, self._case.repeats):
            found: dict[str, list[float]] = defaultdict(list)
            seconds = 0.2 if repeat < 0 else self._case.seconds  # the first is to warm up
            self._alone(found, seconds)
            self._idle(found, seconds)
            self._at_pace(found, seconds)
            if repeat >= 0:
                for what, values in found.items():
                    samples[what].append(values)
        self._alone(defaultdict(list), 0.0)  # ranks that met no more at pace are found out
        spreads = {what: Spread.of(repeats) for what, repeats in samples.items()}
        return {what: spread for what, spread in spreads.items() if spread is not None}

    def _first_reports(self) -> None:
        self._publish_in_turn()
        end_s = time.monotonic() + MEET_S
        while not (self._table.reports["version"] > 0).all():
            if time.monotonic() > end_s:
                seen = int((self._table.reports["version"] > 0).sum())
                raise DpbalError(f"reports of {seen} ranks arrived within {MEET_S:g} s")
            time.sleep(ARRIVE_S)
            self._subscriber.refresh()

    def _publish_in_turn(self) -> list[float]:
        """Let each rank publish while the others do nothing, or let all meet."""
        if self._meet_steps:
            return [us for us, _ in self._ranks.ask("meet", self._meet_steps)]
        in_turn = (
            self._ranks.ask_one(rank, "publish", IN_A_ROW) for rank in range(self._ranks.count)
        )
        return [us for published_us in in_turn for us in published_us]

    def _alone(self, found: dict[str, list[float]], seconds: float) -> None:
        """One rank publishes at a time, and the dispatcher looks when all have."""
        versions = self._table.reports["version"]
        rounds, end_s = 0, time.monotonic() + seconds
        while (
            time.monotonic() < end_s
            or rounds < FEWEST_ROUNDS
            or (not found[READ_NEW] and rounds < MOST_ROUNDS)
        ):
            rounds += 1
            before = versions.copy()
            if self._meet_steps:
                published, (root_us, *others_us) = zip(
                    *self._ranks.ask("meet", self._meet_steps), strict=True
                )
                found[PUBLISH] += published
                found[MEET_ROOT].append(root_us)
                found[MEET_OTHER] += others_us
            else:
                found[PUBLISH] += self._publish_in_turn()
            time.sleep(ARRIVE_S)
            new_us, same_us = (took_us(self._subscriber.refresh) for _ in range(2))
            if (versions > before).all():
                found[READ_NEW].append(new_us)
                found[READ_SAME].append(same_us)
            elif self._meet_steps:
                raise DpbalError(f"ranks meet no more: one was over {MEET_S:g} s late")

    def _idle(self, found: dict[str, list[float]], seconds: float) -> None:
        """Nobody publishes."""
        before_s, start_s = self._ranks.ask("processor_s"), time.monotonic()
        time.sleep(seconds)
        after_s, elapsed_s = self._ranks.ask("processor_s"), time.monotonic() - start_s
        found[IDLE].append(100 * float(np.mean(after_s) - np.mean(before_s)) / elapsed_s)

    def _at_pace(self, found: dict[str, list[float]], seconds: float) -> None:
        """All ranks step and publish."""
        self._ranks.start_pace(self._case.steps_per_s, self._meet_steps)
        self._until_all_new()
        self._decide(found, seconds)
        self._watch(found, seconds)
        self._dispatch(found, seconds)
        paced = self._ranks.stop_pace()
        found[PACE].append(float(np.mean([rank.steps_per_s for rank in paced])))
        for rank in paced:
            found[PUBLISH_PACED] += rank.publish_us
            if rank.meet_us:
                found[MEET_PACED] += rank.meet_us

    def _until_all_new(self) -> None:
        """Wait for a report of each rank, so that none is as old as the pause before."""
        versions = self._table.reports["version"]
        before = versions.copy()
        end_s = time.monotonic() + MEET_S
        while not (versions > before).all() and time.monotonic() < end_s:
            time.sleep(ARRIVE_S)
            self._subscriber.refresh()

    def _decide(self, found: dict[str, list[float]], seconds: float) -> None:
        """Look at random times, at how old what is there is."""
        made_s = self._table.reports["time_s"]
        due_s = time.monotonic()
        end_s = due_s + seconds
        while due_s < end_s:
            due_s += self._random.expovariate(1 / BETWEEN_DECISIONS_S)
            time.sleep(max(due_s - time.monotonic(), 0.0))
            self._subscriber.refresh()
            found[AGE] += ((time.monotonic() - made_s) * 1e3).tolist()

    def _watch(self, found: dict[str, list[float]], seconds: float) -> None:
        """Look half of the time, at how old reports are that were not there at the last look."""
        made_s, versions = self._table.reports["time_s"], self._table.reports["version"]
        self._subscriber.refresh()
        seen = versions.copy()
        start_s = time.monotonic()
        while (before_s := time.monotonic()) < start_s + (seconds if found[LAG] else MEET_S):
            self._subscriber.refresh()
            now_s = time.monotonic()
            is_new = versions != seen
            if is_new.any():
                found[LAG] += ((now_s - made_s[is_new]) * 1e6).tolist()
                seen[:] = versions
            _pause(now_s - before_s)

    def _dispatch(self, found: dict[str, list[float]], seconds: float) -> None:
        """Dispatch without a pause: look, choose, charge; and the end of the oldest request."""
        refresh: Callable[[], None] = self._subscriber.refresh
        dispatch, finish = self._dispatcher.dispatch, self._dispatcher.finish
        clock_ns = time.perf_counter_ns
        total_ns, count = 0, 0
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self._requests += 1
            request = Request(self._requests, 0.0, 1 + int(self._random.random() * 2000), 512)
            self._held.append(self._requests)
            oldest = None
            if len(self._held) > HELD_PER_RANK * self._ranks.count:
                oldest = self._held.popleft()
            start_ns = clock_ns()
            refresh()
            looked_ns = clock_ns()
            dispatch(request, 0.0)
            if oldest is not None:
                finish(oldest)
            ended_ns = clock_ns()
            found[LOOK].append((looked_ns - start_ns) / 1e3)
            found[DISPATCH].append((ended_ns - start_ns) / 1e3)
            total_ns, count = total_ns + ended_ns - start_ns, count + 1
        found[RATE].append(count / (total_ns / 1e9))


def _pause(seconds: float) -> None:
    if seconds > 1e-4:  # a sleep is not much shorter
        time.sleep(seconds)
        return
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass
