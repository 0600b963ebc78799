"""Hold prefill until enough ranks have some, so that they do it in the same step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbal.budgets.base import BUDGETS, UNLIMITED, Budget, Limits
from dpbal.errors import ConfigError
from dpbal.step_time import StepTime


@BUDGETS.register("aligned")
@dataclass
class Aligned(Budget):
    """All ranks prefill together: once enough of them can, or one has waited long enough.

    The rule, step by step, for the whole group at once::

        enough ranks have admissible prefill:
            hold for batching_wait_iters steps if every rank decodes, then release
        else:
            release if some rank has prefill and nothing to decode, or at every timeout_iters-th
            such step since the last release; hold otherwise

    Held steps prefill nothing on any rank; released ones are unlimited. An idle rank counts as
    decoding, because the engine that this is taken from gives it a dummy decode. The count of held
    steps runs on while nobody has prefill, so a time-out is the longest wait, not the usual one.

    Wins for throughput where a step with prefill is much slower than one without: with all ranks
    prefilling at once, nobody waits for nothing. Loses time to first token.

    Args:
        ranks: Ranks that must have prefill; None is all of them.
        timeout_iters: Steps after which prefill is released without enough ranks, at least 1.
        batching_wait_iters: Steps to gather more once enough ranks have prefill.

    Reference: TensorRT-LLM, ``attention_dp_config`` with ``enable_balance`` and its two defaults,
    ``PyExecutor._balance_adp_requests``; its own rule wants all ranks, ``ranks`` is an addition.

    Raises:
        ValueError: For a value outside its range.
    """

    needs_vectors = True

    ranks: int | None = None
    timeout_iters: int = 50
    batching_wait_iters: int = 10

    def __post_init__(self) -> None:
        if self.ranks is not None and self.ranks < 1:
            raise ValueError(f"ranks must be at least 1, or null for all, got {self.ranks}")
        if self.timeout_iters < 1:
            raise ValueError(f"timeout_iters must be at least 1, got {self.timeout_iters}")
        if self.batching_wait_iters < 0:
            raise ValueError(
                f"batching_wait_iters must not be negative, got {self.batching_wait_iters}"
            )
        self._enough = 0
        self._waited = 0
        self._gathered = 0
        self._limits = Limits.unlimited(0)

    def start(self, ranks: int, step_time: StepTime, max_batched_tokens: int) -> None:
        """Size the limits and begin to count.

        Raises:
            ConfigError: If more ranks are asked for than the group has.
        """
        if self.ranks is not None and self.ranks > ranks:
            raise ConfigError(
                f"budget 'aligned' waits for {self.ranks} ranks, but the group has {ranks}; "
                f"give budget.ranks up to {ranks}, or null for all"
            )
        self._enough = ranks if self.ranks is None else self.ranks
        self._waited = 0
        self._gathered = 0
        self._limits = Limits.unlimited(ranks)

    def limits(self, step: int, vectors: np.ndarray) -> Limits:
        """The same for every rank: nothing while held, no limit once released."""
        self._limits.tokens.fill(UNLIMITED if self._releases(vectors) else 0)
        return self._limits

    def _releases(self, vectors: np.ndarray) -> bool:
        has_prefill = vectors["prefill_requests"] > 0
        only_prefill = has_prefill & (vectors["decode_seqs"] == 0)
        every_rank_decodes = np.count_nonzero(only_prefill) == 0
        if np.count_nonzero(has_prefill) >= self._enough:
            self._waited = 0
            if not every_rank_decodes:
                return True
            if self._gathered < self.batching_wait_iters:
                self._gathered += 1
                return False
            self._gathered = 0
            return True
        self._waited += 1
        if every_rank_decodes and self._waited < self.timeout_iters:
            return False
        self._waited = 0
        return True
