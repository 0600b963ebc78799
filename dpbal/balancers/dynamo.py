"""The rank with the least blocks to prefill and to decode, as Dynamo's KV router has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.core import Request, View


@BALANCERS.register("dynamo")
@dataclass
class Dynamo(Balancer):
    """Each request goes where prefill, its own included, and resident decode are the fewest blocks.

    Formula, in blocks of B tokens, with P the tokens to prefill, K the tokens that are resident,
    and n the requests of a rank, reported and in flight, L the tokens of the prompt and m those of
    it that the rank holds::

        cost = prefill_load_scale * max(0, P + L - overlap_credit * m) / B + K / B
        cost += request_weight * n
        rank = argmin cost                      at temperature 0, one of several at random
        p ~ exp(-(cost - min) / ((max - min) * temperature))            at any other

    The signal plays no part.

    Wins where decode memory is short, as it balances what is resident. Loses where it is not: it
    gives up hits to even out tokens that are no work.

    Not reproduced: blocks that requests share count once for each of them; the tiers of caches
    beside the device's; the router's queue; and what it takes off a prefill as it proceeds is
    here what the rank reports.

    Args:
        overlap_credit: Blocks taken off for each that the rank holds.
        prefill_load_scale: Weight of a block to prefill against a resident one.
        request_weight: Blocks that a request counts for beside its own.
        temperature: 0 takes the least cost; more spreads requests over ranks of similar cost.

    Example:
        ``dpbal-run preset=dynamo workload=mooncake_like``

    Reference: NVIDIA Dynamo 1.6, ``lib/kv-router``, with its defaults.

    Raises:
        ValueError: For a negative or infinite value.
    """

    uses_signal = False

    overlap_credit: float = 1.0
    prefill_load_scale: float = 1.0
    request_weight: float = 0.0
    temperature: float = 0.0

    def __post_init__(self) -> None:
        for name in ("overlap_credit", "prefill_load_scale", "request_weight", "temperature"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {value}")

    @property
    def uses_prefixes(self) -> bool:
        """What ranks hold is one term of it."""
        return True

    def start(self, ranks: int, seed: int) -> None:
        """Seed the draws and load the compiled scans."""
        # numba is slow to import, and composing a config needs no scan
        from dpbal.balancers.drawn_scans import drawn_softmin, write_dynamo_costs
        from dpbal.balancers.ties import drawn_argmin

        self._write_costs = write_dynamo_costs
        self._drawn_argmin = drawn_argmin
        self._drawn_softmin = drawn_softmin
        self._uniform = Random(seed).random
        self._costs = np.zeros(ranks)

    def choose(self, request: Request, view: View) -> int:
        """A selectable rank of the least cost, or one drawn by its cost."""
        in_flight, costs = view.in_flight, self._costs
        self._write_costs(
            view.integers,
            in_flight.requests,
            in_flight.tokens,
            in_flight.prefill_tokens,
            view.cached_tokens,
            request.prompt_tokens,
            request.block_tokens,
            view.selectable,
            self.prefill_load_scale,
            self.overlap_credit,
            self.request_weight,
            costs,
        )
        rank: int
        if self.temperature == 0:
            rank = self._drawn_argmin(costs, self._uniform())
        else:
            rank = self._drawn_softmin(costs, self.temperature, self._uniform())
        return rank
