"""Microseconds of a whole dispatch: signal, choice, charge, and taking in fresh reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from time import perf_counter_ns

import numpy as np

from dpbal.balancers import BALANCERS
from dpbal.bench.subjects import VLLM_LOOP, DispatcherSubject, Subject, VllmLoop
from dpbal.bench.traffic import HELD_PER_RANK, Traffic
from dpbal.composition import compose
from dpbal.config import Config

TARGET_US = {8: 3.0, 128: 10.0, 1024: 60.0}
"""Most microseconds p50, by number of ranks."""


@dataclass(frozen=True)
class DispatchRow:
    """What the dispatches of one subject took.

    Attributes:
        subject: A balancer, or vLLM's loop.
        signal: What the balancer ranks by, or None where it reads no signal.
        ranks: Number of ranks.
        dispatches: How many were timed, over all repeats.
        p50_us: Median over the repeats of each repeat's p50.
        p50_us_min: Smallest p50 of a repeat.
        p50_us_max: Largest p50 of a repeat.
        p99_us: Median over the repeats of each repeat's p99.
        share_of_vllm: ``p50_us`` over that of vLLM's loop in the same run.
        target_us: Most that ``p50_us`` should be, or None for other numbers of ranks.
    """

    subject: str
    signal: str | None
    ranks: int
    dispatches: int
    p50_us: float
    p50_us_min: float
    p50_us_max: float
    p99_us: float
    share_of_vllm: float
    target_us: float | None

    @property
    def is_reference(self) -> bool:
        """Whether this is what the others are compared with."""
        return self.subject == VLLM_LOOP

    @property
    def misses(self) -> list[str]:
        """What it should be and is not."""
        if self.is_reference:
            return []
        missed = []
        if self.target_us is not None and self.p50_us > self.target_us:
            missed.append(
                f"{self.p50_us:.2f} us is over {self.target_us:.0f} us "
                f"(best repeat {self.p50_us_min:.2f})"
            )
        if self.share_of_vllm >= 1:
            missed.append(f"{self.share_of_vllm:.2f} times vLLM's loop")
        return missed


@dataclass
class _Candidate:
    """A subject with its traffic, and what its repeats have taken so far."""

    name: str
    signal: str | None
    subject: Subject
    traffic: Traffic
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)

    def repeat(self, dispatches: int) -> None:
        elapsed_us = np.array(timed(self.subject, self.traffic, dispatches)) / 1e3
        p50, p99 = np.quantile(elapsed_us, [0.5, 0.99]).tolist()
        self.p50_us.append(p50)
        self.p99_us.append(p99)


def measure(
    balancers: Sequence[str], ranks: Sequence[int], repeats: int, dispatches: int, seed: int
) -> list[DispatchRow]:
    """Time every balancer with its default signal, and vLLM's loop, in groups of each size.

    In every repeat each subject does ``dispatches`` of them in a row; the order of the subjects is
    shuffled each time, so that what else the machine does hits all alike.
    """
    configs = {name: compose(f"balancer={name}") for name in balancers}
    random = Random(seed)
    rows = []
    for number in ranks:
        candidates = [_Candidate(VLLM_LOOP, None, VllmLoop(number), Traffic(number, seed))]
        for name, config in configs.items():
            subject = DispatcherSubject(config, number)
            signal = signal_of(config)
            candidates.append(_Candidate(name, signal, subject, Traffic(number, seed)))
        for candidate in candidates:  # compile, and fill the ranks
            timed(candidate.subject, candidate.traffic, HELD_PER_RANK * number + 500)
        order = candidates.copy()
        for _ in range(repeats):
            random.shuffle(order)
            for candidate in order:
                candidate.repeat(dispatches)
        vllm_us = median(candidates[0].p50_us)
        rows += [_row(candidate, repeats * dispatches, vllm_us) for candidate in candidates]
    return rows


def timed(subject: Subject, traffic: Traffic, dispatches: int) -> list[int]:
    """Nanoseconds of each of a number of dispatches, with a report before each."""
    dispatch: Callable[..., object] = subject.dispatch
    elapsed_ns = []
    for _ in range(dispatches):
        ended = traffic.ended()
        if ended is not None:
            subject.finish(ended)
        rank = traffic.reporter()
        subject.publish(rank, traffic.report(rank))
        request = traffic.next_request()
        before_ns = perf_counter_ns()
        placed = dispatch(request, request.arrival_s)
        elapsed_ns.append(perf_counter_ns() - before_ns)
        traffic.place(request, subject.rank_of(placed))
    return elapsed_ns


def timer_us(samples: int = 10_000) -> float:
    """Median microseconds that timing itself adds to each dispatch; it is not subtracted."""
    elapsed_ns = []
    for _ in range(samples):
        before_ns = perf_counter_ns()
        elapsed_ns.append(perf_counter_ns() - before_ns)
    return median(elapsed_ns) / 1e3


def signal_of(config: Config) -> str | None:
    """The balancer's signal in a few words, or None where it reads none."""
    if not BALANCERS[config.balancer["name"]].uses_signal:
        return None
    signal = config.signal
    return " + ".join(signal.get("terms") or [signal["name"]])


def _row(candidate: _Candidate, dispatches: int, vllm_us: float) -> DispatchRow:
    p50_us = median(candidate.p50_us)
    ranks = candidate.traffic.ranks
    return DispatchRow(
        subject=candidate.name,
        signal=candidate.signal,
        ranks=ranks,
        dispatches=dispatches,
        p50_us=p50_us,
        p50_us_min=min(candidate.p50_us),
        p50_us_max=max(candidate.p50_us),
        p99_us=median(candidate.p99_us),
        share_of_vllm=p50_us / vllm_us,
        target_us=TARGET_US.get(ranks),
    )
