"""Prefill only in every N-th step, so that all ranks do it in the same ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.budgets.base import BUDGETS, UNLIMITED, Budget, Limits
from dpbal.step_time import StepTime


@BUDGETS.register("interval")
@dataclass
class Interval(Budget):
    """Prefill in steps 0, N, 2N and so on since the group was idle; between them decodes only.

    Formula, for every rank on its own in the other steps::

        tokens = 0   if the rank has a decode and is not bound by its capacity, else unlimited

    A rank is bound by its capacity when requests were left waiting after its last step without this
    limit: holding back would then cost throughput. A rank without decodes has nothing to protect.

    Wins for time per token where a step with prefill is much slower than one without. Loses time to
    first token, up to N - 1 steps of it, and does not make the ranks' prefills equally long.

    Args:
        interval_steps: N, at least 1; 1 limits nothing, which is vLLM's default.

    Reference: vLLM 0.32, ``--prefill-schedule-interval`` (PR #44558), mixture-of-experts models
    only.

    Raises:
        ValueError: If ``interval_steps`` is below 1.
    """

    interval_steps: int = 2

    def __post_init__(self) -> None:
        if self.interval_steps < 1:
            raise ValueError(f"interval_steps must be at least 1, got {self.interval_steps}")
        self._limits = Limits.unlimited(0)

    def start(self, ranks: int, step_time: StepTime, max_batched_tokens: int) -> None:
        """Size the limits."""
        self._limits = Limits.unlimited(ranks)

    def limits(self, step: int, vectors: np.ndarray) -> Limits:
        """Unlimited in every N-th step; between them nothing for ranks that decode and keep up."""
        tokens = self._limits.tokens
        tokens.fill(UNLIMITED)
        if step % self.interval_steps:
            tokens[(vectors["decode_seqs"] > 0) & (vectors["capacity_bound"] == 0)] = 0
        return self._limits
