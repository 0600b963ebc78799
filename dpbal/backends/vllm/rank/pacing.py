"""How much prefill the next step of one engine may hold, as the group's budget says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from dpbal.budgets.base import UNLIMITED
from dpbal.core import VECTOR
from dpbal.step_time import tokens_within

if TYPE_CHECKING:
    from dpbal.budgets.base import Budget
    from dpbal.step_time import StepTime
    from dpbal.transports.base import Vectors


class Pacing:
    """One rank's end of a budget: its limits before each step, and what is left of them in it.

    A budget that needs the vectors of all ranks gets those of ``lag`` steps before: the newest that
    every rank must have published, since the step that it published them before has ended. Where
    one is missing all the same, the rank keeps to what is safe alone, and counts the step.

    Args:
        budget: The rule.
        step_time: The profile, which turns seconds into tokens.
        ranks: How many there are.
        rank: This one.
        max_batched_tokens: Most tokens in a step.
        lag: Steps that are under way when the next one is scheduled.
        vectors: This rank's end of the exchange of vectors; None if the budget needs none.

    Attributes:
        own: ``VECTOR[1]``, to be filled before ``begin``.
        lag: As given.
        limit_tokens: Most prefill tokens in the step; the seconds may allow fewer.
        limit_s: Most seconds of prefill in it.
        is_alone: Whether the step has been limited without knowledge of the other ranks.
        steps: Steps begun.
        alone_steps: Those without knowledge of the other ranks.
    """

    def __init__(
        self,
        budget: Budget,
        step_time: StepTime,
        ranks: int,
        rank: int,
        max_batched_tokens: int,
        lag: int = 1,
        vectors: Vectors | None = None,
    ) -> None:
        budget.start(ranks, step_time, max_batched_tokens)
        self._budget = budget
        self._token_s = step_time.prefill_s_per_token
        self._pair_s = step_time.attention_s_per_pair
        self._rank = rank
        self.lag = lag
        self._exchange = vectors
        self._vectors = np.zeros(ranks, VECTOR)
        self._version: tuple[int, int] | None = None
        self.own = self._vectors[rank : rank + 1] if vectors is None else vectors.own
        self.is_alone = False
        self.steps = 0
        self.alone_steps = 0
        self.limit_tokens = UNLIMITED
        self.limit_s = math.inf
        self.restart()

    def begin(self, wave: int, step: int) -> None:
        """Tell the other ranks what this one has, and find the limits of a step.

        Args:
            wave: Which time that the group has work.
            step: Steps of the wave before this one.
        """
        self.steps += 1
        if self._exchange is None:
            self._ask(step)
            return
        if (wave, step) != self._version:  # else the step that it was published for did not come
            self._version = wave, step
            self._exchange.publish(wave, step)
        known = step - self.lag
        self.is_alone = known < 0 or not self._exchange.read(wave, known, self._vectors)
        if self.is_alone:
            self.alone_steps += 1
            self.limit_tokens, self.limit_s = UNLIMITED, self._budget.alone_s(self.own)
        else:
            self._ask(step)

    def restart(self) -> None:
        """The step is scheduled: nothing of it has been given away."""
        self._left_tokens, self._left_s = self.limit_tokens, self.limit_s

    def within(self, context: int, tokens: int) -> int:
        """How many of a request's next tokens may be prefilled, after ``context`` others."""
        allowed = min(tokens, self._left_tokens)
        fitting = tokens_within(self._token_s, self._pair_s, self._left_s, context)
        return int(fitting) if fitting < allowed else allowed

    def charge(self, context: int, tokens: int) -> None:
        """So many of a request's next tokens will be prefilled."""
        self._left_tokens -= tokens
        pairs = tokens * (context + 0.5 * tokens)
        self._left_s -= self._token_s * tokens + self._pair_s * pairs

    def close(self) -> None:
        """No more steps."""
        if self._exchange is not None:
            self._exchange.close()

    def _ask(self, step: int) -> None:
        tokens, seconds = self._budget.limits(step, self._vectors)
        self.limit_tokens = tokens.item(self._rank)
        self.limit_s = seconds.item(self._rank)
