"""Requests drawn at random: gamma gaps between batches, lengths from mixtures of lognormals."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from dpbal.workloads.base import WORKLOADS, Requests, Workload
from dpbal.workloads.lengths import LengthPart, Lengths


class Stream(IntEnum):
    """Independent random streams of one seed, so that changing one part leaves the others."""

    ARRIVALS = 0
    PROMPTS = 1
    OUTPUTS = 2
    FOLLOW_UPS = 3
    PARENTS = 4
    PREFIXES = 5

    def seed(self, seed: int) -> np.random.SeedSequence:
        """The seed of this stream."""
        return np.random.SeedSequence([seed, self.value])


@WORKLOADS.register("synthetic")
@dataclass
class Synthetic(Workload):
    """Independent requests with random gaps and lengths.

    Batches of ``burst_size`` requests arrive together; the gaps between batches are gamma
    distributed. ``gap_cv=1, burst_size=1`` is a Poisson process, a larger ``gap_cv`` a burstier
    renewal process, 0 a clock. The process has no rate of its own, so ``rate`` or ``load`` must
    be given; ``generate`` returns a mean of one request a second.

    Args:
        requests: How many to make.
        gap_cv: Coefficient of variation of the gaps between batches, 0 or from 0.001 to 1000.
        burst_size: Requests in a batch.
        prompt: Lengths of the prompts.
        output: Lengths of the outputs, drawn independently of the prompts.
    """

    requests: int | None = 4000
    gap_cv: float = 1.0
    burst_size: int = 1
    prompt: Lengths = field(default_factory=lambda: Lengths([LengthPart(mean_tokens=1000)]))
    output: Lengths = field(default_factory=lambda: Lengths([LengthPart(mean_tokens=250)]))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.requests is None:
            raise ValueError("a synthetic workload has no end; add workload.requests=4000")
        if self.rate is None and self.load is None:
            raise ValueError(
                "a synthetic workload has no rate of its own; "
                "add workload.load=0.85 or workload.rate=10"
            )
        if self.gap_cv != 0 and not 1e-3 <= self.gap_cv <= 1e3:
            raise ValueError(f"gap_cv must be 0 or from 0.001 to 1000, got {self.gap_cv}")
        if self.burst_size < 1:
            raise ValueError(f"burst_size must be at least 1, got {self.burst_size}")

    def generate(self, seed: int) -> Requests:
        """The requests, at a mean of one a second; the same for the same seed."""
        count = self.requests or 0
        return Requests(
            arrival_s=self._arrivals_s(count, Stream.ARRIVALS.seed(seed)),
            prompt_tokens=self.prompt.draw(count, Stream.PROMPTS.seed(seed)),
            output_tokens=self.output.draw(count, Stream.OUTPUTS.seed(seed)),
        )

    def _arrivals_s(self, count: int, seed: np.random.SeedSequence) -> np.ndarray:
        batches = -(-count // self.burst_size)
        if self.gap_cv == 0:
            gaps_s = np.ones(batches - 1)
        else:
            shape = self.gap_cv**-2
            gaps_s = np.random.default_rng(seed).gamma(shape, 1 / shape, batches - 1)
        starts_s = np.concatenate([[0.0], np.cumsum(gaps_s * self.burst_size)])
        return np.repeat(starts_s, self.burst_size)[:count]
