"""A fixed time for every rank's own part of a step, which prefill fills up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.budgets.base import BUDGETS, Budget, Limits
from dpbal.step_time import StepTime


@BUDGETS.register("time_cap")
@dataclass
class TimeCap(Budget):
    """Each rank prefills until its own part of the step has taken ``step_s``.

    Formula, for every rank::

        seconds = max(0, step_s - seconds of its own decodes)

    Wins where one time suits all loads: steps are as long as it says, and no longer. Loses where it
    does not: too short, and queues of prompts grow without end; too long, and it limits nothing.

    Args:
        step_s: Seconds, without the fixed part of a step.

    Raises:
        ValueError: If ``step_s`` is not positive.
    """

    step_s: float = 0.25

    def __post_init__(self) -> None:
        if not self.step_s > 0:
            raise ValueError(f"step_s must be positive, got {self.step_s}")
        self._limits = Limits.unlimited(0)

    def start(self, ranks: int, step_time: StepTime, max_batched_tokens: int) -> None:
        """Size the limits."""
        self._limits = Limits.unlimited(ranks)

    def limits(self, step: int, vectors: np.ndarray) -> Limits:
        """For each rank what its decodes leave of ``step_s``."""
        np.clip(self.step_s - vectors["decode_s"], 0.0, None, out=self._limits.seconds)
        return self._limits
