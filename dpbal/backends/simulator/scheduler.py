"""A rank's scheduler, compiled: continuous batching with chunked prefill, as in vLLM V1.

Decodes and prefills in progress come first, in order of admission; then waiting requests are
admitted first come first served. Without KV blocks the request admitted last is preempted and
recomputed.
"""

from __future__ import annotations

import numpy as np

from dpbal.backends.simulator.kv_cache import (
    allocate,
    blocks_short,
    count_blocks,
    find_prefix,
    release,
    share_prefix,
    store,
)
from dpbal.backends.simulator.layout import NONE, State
from dpbal.backends.simulator.queues import FINISHED, end, queue_first
from dpbal.backends.simulator.reports import decode_s
from dpbal.jit import njit
from dpbal.step_time import local_s as _local_s
from dpbal.step_time import tokens_within as _tokens_within

local_s = njit(_local_s)
tokens_within = njit(_tokens_within)


@njit
def _preempt_last(s: State, r: int) -> None:
    """Send the request admitted last back to the front of the queue, to be recomputed."""
    rank = s.ranks[r]
    rank.running -= 1
    request = s.batch[r, rank.running]
    q = s.requests[request]
    tokens = np.int64(q.prompt + q.generated)
    computed = np.int64(q.computed)
    if q.decodes:
        rank.decode_seqs -= 1
        rank.decode_kv_tokens -= tokens
    else:
        rank.prefill_tokens -= tokens - computed
        rank.prefill_squares -= tokens * tokens - computed * computed
    release(s, r, request)
    q.decodes = False
    q.expected = 0
    q.computed = 0
    q.scheduled = 0
    q.preemptions += 1
    rank.step_preemptions += 1
    queue_first(s, r, request)


@njit
def schedule(s: State, r: int) -> None:
    """Fill the next step of a rank and work out its local time."""
    rank = s.ranks[r]
    spec = s.spec[0]
    costs = s.costs[0]
    block_size = spec.block_size
    token_s = costs.prefill_s_per_token
    pair_s = costs.attention_s_per_pair
    left = spec.max_batched_tokens
    left_prefill = s.limit_tokens[r]
    left_s = s.limit_s[r]
    prefill = 0
    decodes = 0
    kv_tokens = 0
    pairs = 0.0
    rank.step_preemptions = 0

    k = 0
    while k < rank.running:
        request = s.batch[r, k]
        k += 1
        q = s.requests[request]
        q.scheduled = 0
        tokens = q.prompt + q.generated - q.computed
        if not q.decodes:
            tokens = min(tokens, left_prefill)
            fitting = tokens_within(token_s, pair_s, left_s, q.computed)
            if fitting < tokens:
                tokens = int(fitting)
        tokens = min(tokens, left)
        if tokens <= 0:
            continue
        needed = q.computed + tokens
        if needed > q.blocks * block_size:
            while blocks_short(s, r, request, needed) > rank.free_blocks and k <= rank.running:
                _preempt_last(s, r)
            if k > rank.running:  # it was itself the last to be preempted
                break
        if not spec.caching:
            count_blocks(s, r, request, needed)
        elif needed >= q.blocks * block_size:  # else no block is new, and none becomes full
            allocate(s, r, request, needed)
        q.scheduled = tokens
        left -= tokens
        if q.decodes:
            decodes += 1
            kv_tokens += needed
        else:
            chunk_pairs = tokens * (q.computed + 0.5 * tokens)
            prefill += tokens
            pairs += chunk_pairs
            left_prefill -= tokens
            left_s -= token_s * tokens + pair_s * chunk_pairs

    while (
        rank.step_preemptions == 0
        and rank.waiting_head != NONE
        and rank.running < spec.max_seqs
        and left > 0
    ):
        request = rank.waiting_head
        q = s.requests[request]
        size = q.prompt + q.generated
        hits, unused_hits, known = find_prefix(s, r, request)
        cached = known * spec.block_size
        tokens = min(size - cached, left, left_prefill)
        fitting = tokens_within(token_s, pair_s, left_s, cached)
        if fitting < tokens:
            tokens = int(fitting)
        whole = (size + spec.block_size - 1) // spec.block_size
        if tokens <= 0 or whole - hits + unused_hits > rank.free_blocks:
            break
        _admit(s, r, request, hits, cached)
        if spec.caching:
            allocate(s, r, request, cached + tokens)
        else:
            count_blocks(s, r, request, tokens)
        q.scheduled = tokens
        chunk_pairs = tokens * (cached + 0.5 * tokens)
        prefill += tokens
        pairs += chunk_pairs
        left -= tokens
        left_prefill -= tokens
        left_s -= token_s * tokens + pair_s * chunk_pairs

    if s.limit_tokens[r] > 0 and rank.step_preemptions == 0:
        rank.capacity_bound = rank.waiting > 0
    rank.step_prefill = prefill
    rank.step_decodes = decodes
    rank.step_prefill_s = token_s * prefill + pair_s * pairs
    rank.step_decode_s = decode_s(costs.decode_s_per_seq, costs.kv_s_per_token, decodes, kv_tokens)
    true = s.true_costs[0]
    rank.local_s = local_s(
        true.fixed_s,
        true.prefill_s_per_token,
        true.decode_s_per_seq,
        true.kv_s_per_token,
        true.attention_s_per_pair,
        prefill,
        decodes,
        kv_tokens,
        pairs,
    )


@njit
def _admit(s: State, r: int, request: int, hits: int, cached: int) -> None:
    """Move the head of the queue into the batch, with the cached blocks it can share.

    Of its prompt ``cached`` tokens need not be computed.
    """
    rank = s.ranks[r]
    q = s.requests[request]
    rank.waiting_head = q.next
    if rank.waiting_head == NONE:
        rank.waiting_tail = NONE
    rank.waiting -= 1
    rank.waiting_tokens -= q.prompt + q.generated
    s.batch[r, rank.running] = request
    rank.running += 1
    q.newest_block = NONE
    q.blocks = 0
    q.shared_blocks = 0
    share_prefix(s, r, request, hits)
    q.computed = cached
    expected = np.int64(q.expected)  # what it was taken for while it waited
    rank.prefill_tokens -= cached - expected
    rank.prefill_squares -= cached * cached - expected * expected
    if q.preemptions == 0:
        q.cached = cached


@njit
def complete(s: State, r: int, start_s: float, now_s: float) -> None:
    """End a rank's step: count what was computed, emit tokens, let finished requests go."""
    rank = s.ranks[r]
    rank.next_tokens = 0
    kept = 0
    for k in range(rank.running):
        request = s.batch[r, k]
        q = s.requests[request]
        tokens = np.int64(q.scheduled)
        s.batch[r, kept] = request
        kept += 1
        if tokens == 0:
            continue
        size = q.prompt + q.generated
        before = np.int64(q.computed)
        q.computed += tokens
        if not q.decodes:
            rank.prefill_tokens -= tokens
            rank.prefill_squares -= (before + tokens) * (before + tokens) - before * before
            store(s, request, int(before))
        if q.computed < size:
            continue
        if q.generated == 0:
            q.first_token_s = now_s
        elif q.last_token_s == start_s:
            rank.next_tokens += 1
        else:
            clock = s.clock[0]
            s.gaps[clock.gaps] = now_s - q.last_token_s
            clock.gaps += 1
        q.last_token_s = now_s
        q.generated += 1
        rank.holding_tokens += 1
        if q.decodes:
            rank.decode_kv_tokens += 1
        else:
            q.decodes = True
            rank.decode_seqs += 1
            rank.decode_kv_tokens += size + 1
        if q.generated == q.output:
            rank.decode_seqs -= 1
            rank.decode_kv_tokens -= size + 1
            rank.holding_tokens -= size + 1
            release(s, r, request)
            end(s, request, FINISHED, now_s)
            kept -= 1
    rank.running = kept
