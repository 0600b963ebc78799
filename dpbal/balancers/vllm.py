"""The rank that vLLM's own front end would pick."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.core import Request, View


@BALANCERS.register("vllm")
@dataclass
class Vllm(Balancer):
    """Each request goes to the smallest of vLLM 0.32's scores.

    Formula, for C dispatchers, with ``w`` the waiting requests (reported, plus C for each dispatch
    that no report has covered) and ``u`` the share of KV in use::

        score = max(C * own outstanding, w + running)
        score += kv_weight * w * max(0, u - kv_threshold)       if w > 0

    The scan starts one rank further at every decision, so that ties rotate; it begins at
    ``seed % ranks`` (vLLM: ``ranks * dispatcher / C``). The signal plays no part.

    Wins where requests are alike: what a dispatcher has outstanding is exact and no report can
    erase it, so bursts spread evenly. Loses where sizes differ, as it never counts tokens.

    Not reproduced: vLLM's copy of the counts forgets its own additions when a broadcast arrives and
    not when a request ends, and a request with a demanded rank is not added to it.

    Args:
        kv_weight: Weight of queueing behind full KV; vLLM has 6.
        kv_threshold: Share of KV below which it does not matter, 0 to 1; vLLM has 0.5.

    Example:
        ``dpbal-run preset=vllm_0_32 group.dispatchers=4``

    Reference: vLLM 0.32, ``v1/engine/core_client.py``, ``DPLBAsyncMPClient``.

    Raises:
        ValueError: For a negative or infinite weight, or a threshold outside [0, 1].
    """

    uses_signal = False

    kv_weight: float = 6.0
    kv_threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.kv_weight < math.inf:
            raise ValueError(f"kv_weight must be finite and not negative, got {self.kv_weight}")
        if not 0 <= self.kv_threshold <= 1:
            raise ValueError(f"kv_threshold must be from 0 to 1, got {self.kv_threshold}")
        self._start = 0

    def start(self, ranks: int, seed: int) -> None:
        """Load the compiled scan, and begin rotation at ``seed % ranks``."""
        from dpbal.balancers.scans import lowest_vllm_score

        self._lowest_vllm_score = lowest_vllm_score
        self._scores = np.zeros(ranks)
        self._start = seed % ranks

    def choose(self, request: Request, view: View) -> int:
        """The selectable rank with the smallest score, from a start that moves on by one."""
        selectable = view.selectable
        rank: int = self._lowest_vllm_score(
            view.integers,
            view.in_flight.requests,
            view.outstanding,
            selectable,
            self._start,
            view.dispatchers,
            self.kv_weight,
            self.kv_threshold,
            self._scores,
        )
        self._start = (self._start + 1) % len(selectable)
        return rank
