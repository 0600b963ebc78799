"""The least loaded of the ranks that hold nearly all of the prompt, as llm-d's router has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.core import Request, View


@BALANCERS.register("llm_d")
@dataclass
class LlmD(Balancer):
    """Each request stays with ranks that hold nearly all of it, and takes the least loaded of them.

    Formula, with P the tokens to prefill of a rank, reported and in flight, L the tokens of the
    prompt and m those of it that the rank holds::

        sticky = ranks with m >= affinity_threshold * L
        all ranks, if none is, or if the least P of the sticky ones is above the least P of the
            others by more than max_penalty_s * prefill_tokens_per_s
        of these the least min(P + L - m, full_tokens), one of several at random

    The signal plays no part.

    Wins where most of a prompt has been seen before, as in conversations. Loses where a prefix is
    a smaller share of the prompt, which it does not follow at all, and where one is hot: its holder
    may be ahead by many seconds of prefill before anyone else gets a copy.

    Not reproduced: other filters and scorers of its configuration, and its flow control. What it
    counts as in flight ends with the first token; here a rank reports what is left.

    Args:
        affinity_threshold: Share of the prompt from which on a rank is sticky, 0 to 1; 1 is all of
            it that can be held.
        max_penalty_s: Seconds of prefill by which sticky ranks may be behind; None for any.
        prefill_tokens_per_s: Prefill that a rank is taken to do, in tokens a second; llm-d measured
            its value on Qwen 32B and two H100, and it is not taken from the profile.
        full_tokens: Beyond so many tokens ranks are equally loaded.

    Example:
        ``dpbal-run preset=llm_d workload=mooncake_like``

    Reference: llm-d-router, ``prefix-cache-affinity-filter`` and ``token-load-scorer``, with their
    defaults and the picker's shuffled ties.

    Raises:
        ValueError: For a threshold outside [0, 1], a negative or infinite penalty, or a speed or
            a number of tokens that is not above 0.
    """

    uses_signal = False

    affinity_threshold: float = 0.8
    max_penalty_s: float | None = 18.0
    prefill_tokens_per_s: float = 15_928.0
    full_tokens: int = 4_194_304

    def __post_init__(self) -> None:
        if not 0 <= self.affinity_threshold <= 1:
            raise ValueError(
                f"affinity_threshold must be from 0 to 1, got {self.affinity_threshold}"
            )
        if self.max_penalty_s is not None and not 0 <= self.max_penalty_s < math.inf:
            raise ValueError(
                f"max_penalty_s must be finite and not negative, got {self.max_penalty_s}"
            )
        for name in ("prefill_tokens_per_s", "full_tokens"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and above 0, got {value}")
        penalty_s = math.inf if self.max_penalty_s is None else self.max_penalty_s
        self._max_penalty_tokens = penalty_s * self.prefill_tokens_per_s

    @property
    def uses_prefixes(self) -> bool:
        """What ranks hold makes them sticky."""
        return True

    def start(self, ranks: int, seed: int) -> None:
        """Seed the draws and load the compiled scan."""
        # numba is slow to import, and composing a config needs no scan
        from dpbal.balancers.drawn_scans import llm_d_rank

        self._llm_d_rank = llm_d_rank
        self._uniform = Random(seed).random
        self._scores = np.zeros(ranks)

    def choose(self, request: Request, view: View) -> int:
        """The least loaded of the sticky ranks, or of all."""
        rank: int = self._llm_d_rank(
            view.integers,
            view.in_flight.prefill_tokens,
            view.cached_tokens,
            request.prompt_tokens,
            view.selectable,
            min(self.affinity_threshold * request.prompt_tokens, request.prompt_tokens - 1.0),
            self._max_penalty_tokens,
            float(self.full_tokens),
            self._scores,
            self._uniform(),
        )
        return rank
