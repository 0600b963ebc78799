"""Ranks in processes of their own, which step and publish as they are told while that is timed."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np

from dpbal.errors import DpbalError
from dpbal.transports import ProcessTransport, Publisher

FOR_EVER = 2**62
LAST, PROGRESS = 0, 1
"""Words of the memory that ranks share: the step before which all stop; then the step of each."""

BEHIND_S = 120.0
"""Longest wait for what a rank was told to do."""


class Paced(NamedTuple):
    """What a rank did at a pace.

    Attributes:
        steps_per_s: That it reached.
        publish_us: Of each publication.
        meet_us: Of each begin of a step at which ranks meet.
    """

    steps_per_s: float
    publish_us: list[float]
    meet_us: list[float]


class Rank:
    """A rank, in its process. Its reports say when they were made, on the clock of the host."""

    def __init__(self, rank: int, shared: np.ndarray) -> None:
        self._rank = rank
        self._shared = shared
        self._step = 0
        self._parent = os.getppid()
        self._publisher: Publisher | None = None

    def open(self, transport: ProcessTransport, address: str) -> None:
        """Become a rank of the group."""
        self._publisher = transport.publisher(address, self._rank)

    def publish(self, times: int) -> list[float]:
        """Publish one report after the other; microseconds of each."""
        return [self._publish() for _ in range(times)]

    def meet(self, interval_steps: int) -> tuple[float, float]:
        """Publish, and begin a step at which ranks meet; microseconds of both."""
        published_us = self._publish()
        self._step += -self._step % interval_steps
        return published_us, self._begin_step()

    def keep_pace(self, steps_per_s: float, first_s: float, meet_steps: int) -> Paced:
        """Step until the last step, and publish after each.

        Args:
            steps_per_s: What was missed is made up for only where ranks meet.
            first_s: When to begin.
            meet_steps: From one step at which ranks meet to the next; 0 if they do not.
        """
        _sleep_until(first_s)
        published_us, met_us = [], []
        steps = self._step
        due_s, start_s = first_s, time.monotonic()
        # who was to say which step is the last may have been killed
        while self._step < self._shared[LAST] and os.getppid() == self._parent:
            self._shared[PROGRESS + self._rank] = self._step
            is_meeting = meet_steps > 0 and self._step % meet_steps == 0
            began_us = self._begin_step()
            if is_meeting:
                met_us.append(began_us)
            due_s += 1 / steps_per_s
            if not meet_steps:  # ranks that meet keep together, as those in lockstep do
                due_s = max(due_s, time.monotonic())
            _sleep_until(due_s)
            published_us.append(self._publish())
        elapsed_s = max(time.monotonic() - start_s, 1e-9)
        return Paced((self._step - steps) / elapsed_s, published_us, met_us)

    def processor_s(self) -> float:
        """Seconds of a core that this process has used so far, all its threads together."""
        return time.process_time()

    def close(self) -> None:
        """Leave the group."""
        if self._publisher is not None:
            self._publisher.close()

    def _publish(self) -> float:
        publisher = self._publisher
        assert publisher is not None
        report = publisher.report
        report["running"] += 1
        report["holding_tokens"] += 7
        report["time_s"] = time.monotonic()
        return took_us(publisher.publish)

    def _begin_step(self) -> float:
        assert self._publisher is not None
        step, self._step = self._step, self._step + 1
        return took_us(partial(self._publisher.step, step))


class Ranks:
    """The processes of a group's ranks, forked from this one.

    Args:
        count: Number of ranks.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("fork")
        self.count = count
        self._shared = np.frombuffer(mmap.mmap(-1, 8 * (PROGRESS + count)), np.int64)
        self._ends: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._meet_steps = 0
        for rank in range(count):
            ours, theirs = context.Pipe()
            self._ends.append(ours)
            process = context.Process(
                target=_serve, args=(rank, self._shared, theirs, self._ends), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            end.close()  # which ends the process
        for process in self._processes:
            process.join(5.0)
            if process.is_alive():
                process.kill()

    def ask(self, method: str, *args: Any) -> list[Any]:
        """Let all ranks do something at once; what each answers.

        Raises:
            DpbalError: If one fails.
        """
        for rank in range(self.count):
            self._tell(rank, method, args)
        return [self._answer(rank) for rank in range(self.count)]

    def ask_one(self, rank: int, method: str, *args: Any) -> Any:
        """Let one rank do something.

        Raises:
            DpbalError: If it fails.
        """
        self._tell(rank, method, args)
        return self._answer(rank)

    def start_pace(self, steps_per_s: float, meet_steps: int) -> None:
        """Let all ranks step: at the same times if they meet, else each at its own."""
        self._meet_steps = meet_steps
        self._shared[LAST] = FOR_EVER
        first_s = time.monotonic() + 0.05
        for rank in range(self.count):
            apart_s = 0.0 if meet_steps else rank / self.count / steps_per_s
            self._tell(rank, "keep_pace", (steps_per_s, first_s + apart_s, meet_steps))

    def stop_pace(self) -> list[Paced]:
        """Let ranks stop; if they meet, all after the same step, which is still before them all."""
        last = self._shared[PROGRESS:].max() + 2 * self._meet_steps if self._meet_steps else 0
        self._shared[LAST] = last
        return [self._answer(rank) for rank in range(self.count)]

    def _tell(self, rank: int, method: str, args: Sequence[Any]) -> None:
        self._ends[rank].send((method, args))

    def _answer(self, rank: int) -> Any:
        try:
            if not self._ends[rank].poll(BEHIND_S):
                raise DpbalError(f"rank {rank} has not answered within {BEHIND_S:g} s")
            answer, failure = self._ends[rank].recv()
        except (EOFError, OSError):
            raise DpbalError(f"rank {rank} has ended; above is why") from None
        if failure is not None:
            raise DpbalError(f"rank {rank}: {failure}")
        return answer


def took_us(call: Callable[[], object]) -> float:
    """Microseconds of a call."""
    before_ns = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - before_ns) / 1e3


def _sleep_until(when_s: float) -> None:
    time.sleep(max(when_s - time.monotonic(), 0.0))


def _serve(rank: int, shared: np.ndarray, told: Connection, others: list[Connection]) -> None:
    """Do what a rank is told, until nobody is there to tell it anything."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the process that tells
    for end in others:
        end.close()  # or those ranks would not hear that this is so
    served = Rank(rank, shared)
    while True:
        try:
            method, args = told.recv()
        except (EOFError, OSError):
            break
        try:
            told.send((getattr(served, method)(*args), None))
        except DpbalError as error:
            told.send((None, str(error)))
    served.close()
