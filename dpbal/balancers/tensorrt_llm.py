"""The rank with the least uncached tokens and relative load, as TensorRT-LLM has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.core import Request, View
from dpbal.errors import ConfigError
from dpbal.signals.base import Signal, Unit


@BALANCERS.register("tensorrt_llm")
@dataclass
class TensorrtLlm(Balancer):
    """Each request goes where what it misses, plus the rank's share of the load, is least.

    Formula, with L the tokens of the prompt, m those of it that a rank holds, and ``load`` the
    signal in tokens::

        score = (L - m) + load_weight * L * load / max(sum of load, L)
        m = 0           for all ranks, unless max m > match_threshold * L
        out of it       ranks with at least the larger of the most requests that any has and
                        fair_share * ceil((all requests + 1) / ranks)

    The sum of load is over ranks that are not out of it. Equal scores go to the least load, and
    then to any of them at random.

    Wins where prefixes are long: load only ever weighs as much as the prompt itself, however much
    there is of it. Loses for the same reason where load is far from even.

    Not reproduced: there every rank decides at once over all requests that have come since the last
    step, related ones and then long ones first, with loads and caches that are of this very step;
    here requests are placed one by one, as they come. Load is there the prompts of the requests
    that a rank has, without their hits; here it is the signal, at best ``holding_in_flight``, which
    counts hits and generated tokens as well.

    Args:
        load_weight: Weight of the load against the tokens that are missed.
        match_threshold: Share of the prompt that the longest hit must be above, 0 to 1.
        fair_share: Multiple of an even share of the requests that a rank may have, 1 or more.

    Example:
        ``dpbal-run +balancer=tensorrt_llm workload=mooncake_like``

    Reference: TensorRT-LLM, ``pyexecutor/scheduler/adp_router.py``, ``KVCacheAwareADPRouter``.

    Raises:
        ValueError: For a negative or infinite weight, a threshold outside [0, 1], or a share under
            1.
    """

    load_weight: float = 1.0
    match_threshold: float = 0.1
    fair_share: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.load_weight < math.inf:
            raise ValueError(f"load_weight must be finite and not negative, got {self.load_weight}")
        if not 0 <= self.match_threshold <= 1:
            raise ValueError(f"match_threshold must be from 0 to 1, got {self.match_threshold}")
        if not 1 <= self.fair_share < math.inf:
            raise ValueError(f"fair_share must be finite and at least 1, got {self.fair_share}")

    @property
    def uses_prefixes(self) -> bool:
        """What ranks hold is one term of it."""
        return True

    def check(self, signal: Signal) -> None:
        """Refuse a signal that cannot be set against tokens of the prompt."""
        if signal.counts is not Unit.tokens:
            raise ConfigError(
                "balancer tensorrt_llm sets its signal against tokens of the prompt, and this one "
                f"counts {signal.counts.value}; type signal=holding_in_flight"
            )

    def start(self, ranks: int, seed: int) -> None:
        """Seed the draws and load the compiled scan."""
        # numba is slow to import, and composing a config needs no scan
        from dpbal.balancers.drawn_scans import tensorrt_llm_rank

        self._tensorrt_llm_rank = tensorrt_llm_rank
        self._uniform = Random(seed).random
        self._scores = np.zeros(ranks)

    def choose(self, request: Request, view: View) -> int:
        """The selectable rank with the smallest score, of those below the cap."""
        rank: int = self._tensorrt_llm_rank(
            view.loads,
            view.integers,
            view.in_flight.requests,
            view.cached_tokens,
            request.prompt_tokens,
            view.selectable,
            self.load_weight,
            self.match_threshold,
            self.fair_share,
            self._scores,
            self._uniform(),
        )
        return rank
