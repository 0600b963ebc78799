"""What a rank reports, as a dispatcher reads it, and what a count over all requests gives."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpbal.core import LoadTable
from dpbal.transports import Shm
from dpbal.transports.base import Exchange
from tests.vllm.engine import BLOCK, COSTS


class Watched:
    """Load reports of a group whose rank 0 is the one under test, as a dispatcher reads them.

    Args:
        dispatchers: Columns of the acknowledgement table.
    """

    def __init__(self, dispatchers: int = 1) -> None:
        self.exchange: Exchange = Shm().create(2, dispatchers)
        self.table = LoadTable(2, dispatchers)
        self._subscriber = Shm().subscriber(self.exchange.address, self.table)

    def report(self) -> dict[str, Any]:
        """The newest one."""
        self._subscriber.refresh()
        row = self.table.reports[0]
        return {name: row[name].item() for name in row.dtype.names or ()}

    def received(self) -> list[tuple[int, int]]:
        """Epoch and sequence received of each dispatcher."""
        self._subscriber.refresh()
        epochs, sequences = self.table.received_epoch[0], self.table.received_sequence[0]
        return list(zip(epochs.tolist(), sequences.tolist(), strict=True))

    def close(self) -> None:
        """Look no more, and remove them."""
        self._subscriber.close()
        self.exchange.close()


def counted(
    scheduler: Any, now_s: float | None = None, expected: Mapping[str, int] | None = None
) -> dict[str, float]:
    """What a report must say, counted over all requests of a scheduler.

    Args:
        scheduler: Which.
        now_s: Time.
        expected: By request, tokens that its dispatcher expects in the prefix cache.
    """
    from vllm.v1.request import RequestStatus

    requests = [r for r in scheduler.requests.values() if not r.is_finished()]
    running = [r for r in requests if r.status == RequestStatus.RUNNING]
    waiting = [r for r in requests if r.status != RequestStatus.RUNNING]
    prefilling = [r for r in running if r.is_prefill_chunk]
    decoding = [r for r in running if not r.is_prefill_chunk]
    left = [(expected_in_cache(r, expected or {}), r.num_tokens) for r in waiting]
    left += [(r.num_computed_tokens, r.num_tokens) for r in prefilling]
    pairs = sum((size * size - computed * computed) / 2 for computed, size in left)
    tokens = sum(size - computed for computed, size in left)
    pool = scheduler.kv_cache_manager.block_pool
    used = sum(block.ref_cnt > 0 for block in pool.blocks if not block.is_null)
    now_s = time.time() if now_s is None else now_s
    tokenless = [r.arrival_time for r in waiting + prefilling if not r.num_output_tokens]
    return {
        "running": len(running),
        "waiting": len(waiting),
        "holding_tokens": sum(r.num_tokens for r in requests),
        "waiting_tokens": sum(r.num_tokens for r in waiting),
        "kv_used_tokens": used * BLOCK,
        "kv_capacity_tokens": (len(pool.blocks) - 1) * BLOCK,
        "prefill_tokens": tokens,
        "prefill_s": COSTS.prefill_s_per_token * tokens + COSTS.attention_s_per_pair * pairs,
        "decode_seqs": len(decoding),
        "decode_s": COSTS.decode_s(len(decoding), sum(r.num_tokens for r in decoding)),
        "oldest_wait_s": max(0.0, now_s - min(tokenless)) if tokenless else 0.0,
    }


def expected_in_cache(request: Any, expected: Mapping[str, int]) -> int:
    """Tokens of a waiting request that count as cached, of those that were expected."""
    if request.num_preemptions:
        return 0
    return min(expected.get(request.request_id, 0), int(request.num_tokens) - 1)


def differences(reported: Mapping[str, float], expected: Mapping[str, float]) -> dict[str, Any]:
    """Fields in which a report is not what was counted; ages may be a second apart."""
    return {
        name: (reported[name], value)
        for name, value in expected.items()
        if not np.isclose(
            reported[name], value, rtol=1e-9, atol=1.0 if name == "oldest_wait_s" else 1e-12
        )
    }
