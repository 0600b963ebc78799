"""One time level for all ranks each step, so that prefill goes where a step has room for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpbal.budgets.base import BUDGETS, Budget, Limits
from dpbal.step_time import StepTime


@BUDGETS.register("level")
@dataclass
class Level(Budget):
    """Each rank prefills for as long as the level is above its own decodes.

    **The objective.** In a lockstep group a step lasts as long as its slowest rank, and every
    decoding request of the group waits for it. A rank with few decodes has time left over before
    the slowest is done: prefill in that time is free. Beyond that, raising the step by x seconds
    costs each of D decodes x seconds, and buys x seconds of prefill on every rank that has some. If
    all N ranks use it, that is the least the work can cost. If k do, ``(1 - k / N) x`` is wasted:
    spread over all ranks, the same work would have taken ``k x / N``. So prefill that only some
    ranks have should wait until others have some too, but not for ever.

    **The rule.** The level is the highest one for which

    * the waste is affordable: ``D * waste <= credit``. Credit grows with waiting, by
      ``ttft_weight`` seconds for each second that a request waits for its first token, and is never
      more than that for all who wait now. Waiting and waste are so kept equal, as in ski rental.
    * the raise that not all ranks can use is at most ``growth`` times the decode step, or else one
      long prompt would hold up everybody: the credit of a long queue is large.

    Everything follows from vectors that all ranks have agreed on, so all choose the same level. A
    mixed-step penalty counts as waste of the first prefill in a step, so with a large one whole
    steps go without. Without any decode there is nothing to protect, and no limit.

    Wins end-to-end latency and time per token wherever steps are unequal, most with
    ``balancer=least_prefill``, which gives all ranks prefill to do at once. Loses time to first
    token at low load, where a prompt waits for company; ``ttft_deadline_s`` bounds that.

    Args:
        growth: Most that a step grows, in decode steps, for prefill that some rank cannot share.
        ttft_weight: Seconds of decoding that a second of waiting for a first token is worth; null
            for any number, so that only ``growth`` counts.
        ttft_deadline_s: A request that must start now to have its first token so soon after it
            came lifts the level for its rank to a full chunk; null for no deadline.
        tpot_s: No step is made longer than this for prefill, unless a request is past its deadline;
            null for no target.

    Example:
        ``dpbal-run balancer=least_prefill budget=level``

    Raises:
        ValueError: For a value that is not positive.
    """

    growth: float = 0.5
    ttft_weight: float | None = 4.0
    ttft_deadline_s: float | None = None
    tpot_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("growth", "ttft_weight", "ttft_deadline_s", "tpot_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self._limits = Limits.unlimited(0)

    def start(self, ranks: int, step_time: StepTime, max_batched_tokens: int) -> None:
        """Size the limits, forget all credit, and compile the rule."""
        from dpbal.budgets.level_rule import level

        self._level = level
        self._limits = Limits.unlimited(ranks)
        self._step_time = step_time
        self._chunk_s = step_time.prefill_s_per_token * max_batched_tokens
        self._credit_s = 0.0
        self._last_step_s = 0.0

    def limits(self, step: int, vectors: np.ndarray) -> Limits:
        """For each rank the level less its own decodes."""
        decodes = int(vectors["decode_seqs"].sum())
        waiting = int(vectors["prefill_requests"].sum())
        bare_s = self._step_s(vectors)
        if waiting == 0 or decodes == 0:
            self._credit_s = 0.0
            self._last_step_s = bare_s
            self._limits.seconds.fill(math.inf)
            return self._limits
        level_s, waste_s = self._level(
            vectors["decode_s"],
            vectors["prefill_s"],
            self._chunk_s,
            self._step_time.mixed_penalty_s,
            self._affordable_s(vectors, decodes, waiting),
            self.growth * bare_s,
            self._room_s(vectors, bare_s),
        )
        self._credit_s = max(0.0, self._credit_s - decodes * max(0.0, waste_s))
        level_s = max(level_s, self._claimed_s(vectors, bare_s))
        np.clip(level_s - vectors["decode_s"], 0.0, None, out=self._limits.seconds)
        self._last_step_s = bare_s + max(0.0, level_s - float(vectors["decode_s"].max()))
        return self._limits

    def _step_s(self, vectors: np.ndarray) -> float:
        """How long a step without prefill takes."""
        step_time = self._step_time
        tokens = vectors["decode_seqs"].tolist()
        own_s = step_time.fixed_s + float(vectors["decode_s"].max())
        return own_s + step_time.common_s(tokens, is_mixed=False)

    def _affordable_s(self, vectors: np.ndarray, decodes: int, waiting: int) -> float:
        """The waste that the credit pays for, after adding what the last step's waiting earned."""
        if self.ttft_weight is None:
            return math.inf
        earned_s = self.ttft_weight * waiting * self._last_step_s
        most_s = self.ttft_weight * float(vectors["wait_s"].sum())
        self._credit_s = min(self._credit_s + earned_s, most_s)
        return self._credit_s / decodes

    def _room_s(self, vectors: np.ndarray, bare_s: float) -> float:
        """Most that the level may be raised at all: up to the target for a token's time."""
        if self.tpot_s is None:
            return math.inf
        overdue_s = self.ttft_deadline_s
        if overdue_s is not None and (vectors["oldest_wait_s"] > overdue_s).any():
            return math.inf
        growth = self._step_time.common_s_per_token / self._step_time.prefill_s_per_token
        return max(0.0, (self.tpot_s - bare_s) / (1.0 + growth))

    def _claimed_s(self, vectors: np.ndarray, bare_s: float) -> float:
        """The level that a rank needs whose oldest request must start now to meet its deadline."""
        if self.ttft_deadline_s is None:
            return -math.inf
        full_s = bare_s + self._chunk_s
        prefill_s = vectors["prefill_s"]
        left_s = self.ttft_deadline_s - vectors["oldest_wait_s"]
        is_due = (left_s > 0) & (left_s <= full_s * np.maximum(1.0, prefill_s / self._chunk_s))
        is_due &= vectors["prefill_requests"] > 0
        tops_s = vectors["decode_s"] + np.minimum(prefill_s, self._chunk_s)
        return float(tops_s[is_due].max(initial=-math.inf))
