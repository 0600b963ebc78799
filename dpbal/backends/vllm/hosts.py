"""Which of a server's ranks dpbal balances on a host, where they may be on several."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.config import ParallelConfig


def group_size(parallel: ParallelConfig) -> int:
    """Ranks among which the front ends of this host choose.

    They are all ranks, or with hybrid load balancing those of the host.
    """
    ranks, local = parallel.data_parallel_size, parallel.data_parallel_size_local
    return local if parallel.data_parallel_hybrid_lb else ranks


def rank_in_group(parallel: ParallelConfig) -> int:
    """An engine's place among them, in its own process."""
    rank, local = parallel.data_parallel_index, parallel.data_parallel_rank_local
    return rank if local is None or not parallel.data_parallel_hybrid_lb else local
