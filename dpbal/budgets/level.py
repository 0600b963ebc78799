"""One time level for all ranks each step, so that prefill goes where a step has room for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dpbal.budgets.base import BUDGETS, Budget, Limits
from dpbal.core import VECTOR
from dpbal.errors import ConfigError
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
    * the raise that not all ranks can use is at most ``growth`` times a step of decodes alone, and
      the mixed-step penalty: without that bound the credit of a long queue lets one long prompt
      hold up everybody. With a target ``tpot_s`` it is the step that the target leaves room for.

    A rank that must prefill at full pace to meet ``ttft_deadline_s`` lifts the level for itself, as
    long as there is less prefill than keeps one rank busy: with more, the deadlines of prompts that
    prefill alone cannot all be met, and trying would hold up all decodes.

    Everything follows from vectors that all ranks have agreed on, so all choose the same level. A
    mixed-step penalty counts as waste of the first prefill in a step, so with a large one whole
    steps go without. Without any decode there is nothing to protect, and no limit. A rank that does
    not know the others may lengthen its step by ``growth``.

    **The constants.** What a step takes is compared with what the profile says of what all ranks
    did in it. From that follow five factors, which all ranks hold alike: of the fixed parts, of
    prefill, of decodes, of the common part's tokens and of the mixed-step penalty. The rule goes by
    the product. A part that a profile has as 0 cannot be learnt, nor what does not show: a factor
    moves where its part is a good share of steps that differ. One step that took far too long
    teaches nothing; ten in a row mean that steps now take another time.

    Wins end-to-end latency and time per token wherever steps are unequal, most with
    ``balancer=least_prefill``, which gives all ranks prefill to do at once. Loses time to first
    token at low load, where a prompt waits for company; a larger ``ttft_weight`` or a shorter
    ``ttft_deadline_s`` bounds that.

    Args:
        growth: Most that a step grows, in steps of decodes alone, for prefill that some rank cannot
            share.
        ttft_weight: Seconds of decoding that a second of waiting for a first token is worth; null
            for any number, so that only ``growth`` counts.
        ttft_deadline_s: A request that must start now to have its first token so soon after it
            came lifts the level for its rank to a full chunk; null for no deadline.
        tpot_s: Prefill makes no step longer than this, and every step may be so long, whatever
            ``growth`` and the deadline say; null for no target. Queues grow without end where the
            target is too short for the load.
        learns: Whether to correct the profile's constants by how long steps take. Where they are
            right, it changes nothing.

    Attributes:
        factors: ``float64[5]``, what steps take over what the profile says, in the above order.

    Example:
        ``dpbal-run balancer=least_prefill budget=level``

    Raises:
        ValueError: For a value that is not positive.
    """

    needs_vectors = True

    growth: float = 0.5
    ttft_weight: float | None = 4.0
    ttft_deadline_s: float | None = 3.0
    tpot_s: float | None = None
    learns: bool = True

    def __post_init__(self) -> None:
        for name in ("growth", "ttft_weight", "ttft_deadline_s", "tpot_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self._limits = Limits.unlimited(0)

    def start(self, ranks: int, step_time: StepTime, max_batched_tokens: int) -> None:
        """Size the limits, forget all credit, and compile the rule.

        Raises:
            ConfigError: If prefill costs nothing, so that time does not limit it.
        """
        from dpbal.budgets import level_costs, level_rule

        chunk_s = step_time.prefill_s(max_batched_tokens)
        if chunk_s == 0:
            raise ConfigError(
                "budget 'level' limits prefill by its time, but prefill costs nothing in this "
                "profile; give profile.prefill_s_per_token, or type budget=fixed"
            )
        self._limits = Limits.unlimited(ranks)
        self._step_time = step_time
        targets = (self.ttft_weight, self.ttft_deadline_s, self.tpot_s)
        optional = (math.inf if value is None else value for value in targets)
        rule = np.array([(self.growth, *optional, chunk_s)], level_rule.RULE)
        state = np.zeros(1, level_rule.STATE)
        self.factors = np.ones(level_costs.FACTORS)
        self._limit: Callable[..., None]
        self._arguments: tuple[np.ndarray, ...]
        if self.learns:
            self._limit = level_costs.limit
            self._arguments = (
                step_time.costs(),
                rule,
                self.factors,
                level_costs.first_doubt(),
                level_costs.first_doubt(),
                level_costs.first_state(),
                np.zeros(ranks, VECTOR),
                step_time.costs(),
                rule.copy(),
                state,
                self._limits.seconds,
            )
        else:
            self._limit = level_rule.limit
            self._arguments = (step_time.costs(), rule, state, self._limits.seconds)

    def limits(self, step: int, vectors: np.ndarray) -> Limits:
        """For each rank the level less its own decodes."""
        self._limit(vectors, *self._arguments)
        return self._limits

    def alone_s(self, own: np.ndarray) -> float:
        """What ``growth`` allows, as if the others had nothing to do."""
        step_time, v = self._step_time, own[0]
        if v["decode_seqs"] == 0:
            return math.inf
        fixed, prefill, decode, token, _ = self.factors.tolist()
        fixed_s = step_time.fixed_s + step_time.common_fixed_s
        tokens_s = step_time.common_s_per_token * int(v["decode_seqs"])
        bare_s = fixed * fixed_s + decode * float(v["decode_s"]) + token * tokens_s
        return self.growth * bare_s / prefill
