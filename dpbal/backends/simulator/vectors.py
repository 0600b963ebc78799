"""What every rank tells the budget before a step, compiled."""

from __future__ import annotations

import numpy as np

from dpbal.backends.simulator.layout import NONE
from dpbal.backends.simulator.reports import decode_s, oldest_arrival_s, queued_s
from dpbal.backends.simulator.views import open_views
from dpbal.jit import njit_making_arrays


@njit_making_arrays
def fill_vectors(addresses: np.ndarray, vectors: np.ndarray) -> None:
    """Write what every rank tells the budget before a step, ``VECTOR[ranks]``.

    Queued prefill counts as far as free slots and KV blocks would admit it now, without what is
    expected to be cached.
    """
    s = open_views(addresses)
    spec = s.spec[0]
    costs = s.costs[0]
    now_s = s.clock[0].now_s
    for r in range(s.ranks.size):
        rank = s.ranks[r]
        vector = vectors[r]
        vector.decode_seqs = rank.decode_seqs
        vector.decode_s = decode_s(
            costs.decode_s_per_seq, costs.kv_s_per_token, rank.decode_seqs, rank.decode_kv_tokens
        )
        tokens = rank.prefill_tokens
        squares = rank.prefill_squares
        waiting = 0
        wait_s = 0.0
        slots = spec.max_seqs - rank.running
        free = rank.free_blocks
        request = rank.waiting_head
        while request != NONE and waiting < slots:
            q = s.requests[request]
            size = q.prompt + q.generated
            free -= (size + spec.block_size - 1) // spec.block_size
            if free < 0:
                break
            waiting += 1
            if q.generated == 0:
                wait_s += now_s - q.arrival_s
            request = q.next
        prefilling = rank.running - rank.decode_seqs
        for k in range(rank.running - prefilling, rank.running):  # they were admitted last
            q = s.requests[s.batch[r, k]]
            if q.generated == 0:
                wait_s += now_s - q.arrival_s
        while request != NONE:  # the rest of the queue cannot be admitted
            q = s.requests[request]
            size = np.int64(q.prompt + q.generated)
            expected = np.int64(q.expected)
            tokens -= size - expected
            squares -= size * size - expected * expected
            request = q.next
        vector.prefill_s = queued_s(
            costs.prefill_s_per_token, costs.attention_s_per_pair, tokens, squares
        )
        vector.prefill_tokens = tokens
        vector.prefill_requests = prefilling + waiting
        vector.wait_s = wait_s
        vector.oldest_wait_s = max(0.0, now_s - oldest_arrival_s(s, r))
        vector.capacity_bound = rank.capacity_bound
        is_first = s.clock[0].wave_step == 0
        vector.step_s = 0.0 if is_first else now_s - rank.step_start_s
        vector.done_prefill_s = 0.0 if is_first else rank.step_prefill_s
        vector.done_decode_s = 0.0 if is_first else rank.step_decode_s
        vector.done_tokens = 0 if is_first else rank.step_prefill + rank.step_decodes
