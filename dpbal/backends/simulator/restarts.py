"""What operators do to ranks, compiled: start a process anew, clear the prefix caches."""

from __future__ import annotations

import numpy as np

from dpbal.backends.simulator.kv_cache import drop_prefix
from dpbal.backends.simulator.layout import NONE, UNHASHED, State
from dpbal.backends.simulator.queues import ABORTED, end
from dpbal.backends.simulator.reports import publish
from dpbal.jit import njit


@njit
def next_reset_s(s: State) -> float:
    """When the prefix caches are to be cleared next, infinity for never."""
    done = s.clock[0].resets
    return float(s.reset_s[done]) if done < s.reset_s.size else np.inf


@njit
def reset_caches(s: State) -> None:
    """Clear all ranks' prefix caches, but for the blocks that requests hold."""
    clock = s.clock[0]
    clock.now_s = next_reset_s(s)
    clock.resets += 1
    if not s.spec[0].caching:
        return
    for r in range(s.ranks.size):
        for block in range(s.spec[0].blocks):
            if s.blocks[r, block].references == 0 and s.blocks[r, block].key >= 0:
                drop_prefix(s, r, block)


@njit
def restart_due(s: State, r: int) -> None:
    """Start a rank's process anew, between two of its steps, if it is time."""
    if s.ranks[r].restart_s <= s.clock[0].now_s:
        _restart(s, r)


@njit
def _abort(s: State, head: int) -> None:
    """End the requests of a queue."""
    request = head
    while request != NONE:
        following = s.requests[request].next
        end(s, request, ABORTED, s.clock[0].now_s)
        request = following


@njit
def _restart(s: State, r: int) -> None:
    """End all that the rank was sent, empty its memory, and let it report as a new process."""
    rank = s.ranks[r]
    rank.restart_s = np.inf
    for k in range(rank.running):
        end(s, s.batch[r, k], ABORTED, s.clock[0].now_s)
    _abort(s, rank.waiting_head)
    _abort(s, rank.inbox_head)
    rank.running = 0
    rank.waiting = 0
    rank.waiting_head = NONE
    rank.waiting_tail = NONE
    rank.inbox_head = NONE
    rank.inbox_tail = NONE
    rank.holding_tokens = 0
    rank.waiting_tokens = 0
    rank.prefill_tokens = 0
    rank.prefill_squares = 0
    rank.decode_seqs = 0
    rank.decode_kv_tokens = 0
    rank.step_prefill = 0
    rank.step_decodes = 0
    rank.step_prefill_s = 0.0
    rank.step_decode_s = 0.0
    rank.capacity_bound = False
    _empty(s, r)

    rank.epoch += 1
    rank.version = 0
    rank.pending_count = 0  # what was under way is lost with the connection
    for d in range(s.heard.shape[1]):
        s.heard[r, d] = 0
    publish(s, r, True)


@njit
def _empty(s: State, r: int) -> None:
    """Free all KV blocks and forget what they held; what nobody has been told yet is lost."""
    blocks = s.spec[0].blocks
    rank = s.ranks[r]
    rank.free_blocks = blocks
    rank.lost_events = s.clock[0].events
    s.prefixes[r] = 0
    if not s.spec[0].caching:
        return
    s.cached_keys[r, :] = NONE
    for block in range(blocks + 1):
        entry = s.blocks[r, block]
        entry.key = UNHASHED
        entry.references = 0
        entry.older = NONE
        entry.next = (block + 1) % (blocks + 1)
        entry.previous = (block + blocks) % (blocks + 1)
