"""The backend ``simulator``: compiled ranks, and the same Python dispatchers as anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dpbal.backends.base import BACKENDS, Backend, Parts, Records
from dpbal.errors import unknown
from dpbal.step_time import COSTS
from dpbal.workloads.base import Requests

MOST_LAG = 5
"""Steps by which vectors may be late: engines keep eight versions, and may be two steps ahead."""

FACTORS = [name for name in COSTS.names or () if COSTS[name].kind == "f"]
"""Constants that ``true_cost`` may have."""


@BACKENDS.register("simulator")
@dataclass
class Simulator(Backend):
    """Ranks as vLLM V1 schedulers whose steps take the time that the profile says.

    Args:
        max_num_batched_tokens: Most tokens in a step of a rank.
        max_num_seqs: Most requests in a rank's batch.
        block_size: Tokens in a KV block.
        kv_capacity_tokens: KV cache of a rank; None takes the profile's.
        prefix_cache: Whether each rank reuses the KV of prompts whose block hashes are known.
        shared_prefix_store: Whether it reuses what the other ranks have computed too, as from a KV
            store behind all of them that forgets nothing and answers at once.
        vector_lag: Steps by which the budget's vectors are late: 1 where an engine publishes
            what it has before a step and reads in the next, 2 where it schedules a step ahead.
        hold: Whether dispatchers keep what arrives in a step of a lockstep group until it ends, and
            then place it together on fresh reports, in the balancer's own order.
        max_time_s: Stop the clock then, leaving requests unfinished; None runs until all ended.
        true_cost: Factors by which constants of the profile are wrong, by name: steps take the
            product, and everybody goes on believing the profile; None where it is right.
        restarts: Ranks whose process starts anew, and after how many seconds: at the end of the
            step that then runs, or at once; all that it was sent is aborted, and its caches are
            empty.
        cache_resets: Times in seconds at which an operator clears all ranks' prefix caches, but for
            what requests hold then.
    """

    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    block_size: int = 16
    kv_capacity_tokens: int | None = None
    prefix_cache: bool = True
    shared_prefix_store: bool = False
    vector_lag: int = 1
    hold: bool = False
    max_time_s: float | None = None
    true_cost: dict[str, float] | None = None
    restarts: dict[int, float] | None = None
    cache_resets: list[float] | None = None

    def __post_init__(self) -> None:
        for name in ("max_num_batched_tokens", "max_num_seqs", "block_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.kv_capacity_tokens is not None and self.kv_capacity_tokens < self.block_size:
            raise ValueError(
                f"kv_capacity_tokens must hold a block of {self.block_size} tokens, "
                f"got {self.kv_capacity_tokens}"
            )
        if not 0 <= self.vector_lag <= MOST_LAG:
            raise ValueError(f"vector_lag must be from 0 to {MOST_LAG}, got {self.vector_lag}")
        if self.max_time_s is not None and not self.max_time_s > 0:
            raise ValueError(f"max_time_s must be positive, got {self.max_time_s}")
        for name, factor in (self.true_cost or {}).items():
            if name not in FACTORS:
                raise ValueError(f"true_cost: {unknown('constant', name, FACTORS)}")
            if not factor > 0:
                raise ValueError(f"true_cost.{name} must be a positive factor, got {factor}")
        for rank, at_s in (self.restarts or {}).items():
            if not at_s >= 0:
                raise ValueError(f"restarts: rank {rank} must restart at 0 s or later, got {at_s}")
        for at_s in self.cache_resets or ():
            if not at_s >= 0:
                raise ValueError(f"cache_resets must be at 0 s or later, got {at_s}")

    def simulator(self) -> Simulator:
        """Itself."""
        return self

    def run(
        self, requests: Requests, parts: Parts, progress: Callable[[int], None] | None = None
    ) -> Records:
        """Run all requests; see ``Backend.run``."""
        from dpbal.backends.simulator.run import Run

        return Run(self, requests, parts).run(progress)
