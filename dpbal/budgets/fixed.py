"""No limit beyond the engine's own token budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.budgets.base import BUDGETS, Budget, Limits
from dpbal.step_time import StepTime


@BUDGETS.register("fixed")
@dataclass
class Fixed(Budget):
    """A step takes as much prefill as ``max_num_batched_tokens`` leaves room for.

    Wins for time to first token at low load. Loses in a lockstep group: one rank's full chunk makes
    every rank wait, and with long contexts a chunk of so many tokens can take seconds.

    Reference: vLLM V1's scheduler.
    """

    is_static = True
    needs_lockstep = False

    def __post_init__(self) -> None:
        self._limits = Limits.unlimited(0)

    def start(self, ranks: int, step_time: StepTime, max_batched_tokens: int) -> None:
        """Size the limits."""
        self._limits = Limits.unlimited(ranks)

    def limits(self, step: int, vectors: np.ndarray) -> Limits:
        """Nothing is limited."""
        return self._limits
