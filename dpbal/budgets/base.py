"""What every budget is: a rule for how much prefill each rank may do in its next step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from dpbal.registry import Registry
from dpbal.step_time import StepTime

UNLIMITED = np.iinfo(np.int64).max
"""A limit that limits nothing."""


class Limits(NamedTuple):
    """The most prefill each rank may do in a step, beside the engine's own token budget.

    They are valid until the budget is asked again, and nobody else writes them.

    Attributes:
        tokens: ``int64[ranks]``, most prefill tokens.
        seconds: ``float64[ranks]``, most seconds of local prefill time.
    """

    tokens: np.ndarray
    seconds: np.ndarray

    @classmethod
    def unlimited(cls, ranks: int) -> Limits:
        """New limits that limit nothing."""
        return cls(np.full(ranks, UNLIMITED), np.full(ranks, np.inf))


@dataclass
class Budget(ABC):
    """A rule that says how much prefill each rank may do in its next step.

    All ranks compute the same limits from the same vectors. State between steps must follow from
    the vectors seen, so that every rank holds the same.
    """

    is_static: ClassVar[bool] = False
    """Whether the limits never change, so that one call serves a whole run."""

    needs_lockstep: ClassVar[bool] = True
    """Whether the rule does nothing in an independent group."""

    needs_vectors: ClassVar[bool] = False
    """Whether a rank's limit follows from the others' vectors too, and not from its own alone."""

    def start(  # noqa: B027 - most rules need none of it
        self, ranks: int, step_time: StepTime, max_batched_tokens: int
    ) -> None:
        """Called once before the first step.

        Args:
            ranks: How many there are.
            step_time: The cost model.
            max_batched_tokens: Most tokens in a step of a rank, the engine's own budget.
        """

    @abstractmethod
    def limits(self, step: int, vectors: np.ndarray) -> Limits:
        """Limits for a step.

        Args:
            step: Steps since the group was last idle, from 0.
            vectors: ``core.VECTOR[ranks]``, one consistent version.
        """

    def alone_s(self, own: np.ndarray) -> float:
        """Seconds of prefill that are safe for a rank that does not know the others' vectors.

        Args:
            own: ``core.VECTOR[1]``, its own.
        """
        return math.inf


BUDGETS: Registry[Budget] = Registry("budget")
